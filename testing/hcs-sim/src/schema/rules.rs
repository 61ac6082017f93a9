//! What a system's document has to say that its types don't.

use serde_json::Value;

use super::{Extent, Violation, check, parse};

/// Checks the document that `HcsCreateComputeSystem` takes, and what it says about a guest, and
/// returns it.
///
/// # Errors
/// If the service wouldn't take it.
pub fn system(text: &str) -> Result<Value, Violation> {
    let document = parse("ComputeSystem", text)?;
    version(&document)?;
    let kinds = ["Container", "VirtualMachine", "HostedSystem"];
    match kinds.iter().filter(|kind| document.get(**kind).is_some()).count() {
        1 => {}
        0 => return wrong("", "it is neither a container nor a virtual machine"),
        _ => return wrong("", "it is more than one kind of system"),
    }
    let hosted = document.get("HostedSystem");
    if hosted.is_some() != document.get("HostingSystemId").is_some() {
        return wrong("HostingSystemId", "a hosted system has one, and no other has");
    }
    if let Some(machine) = document.get("VirtualMachine") {
        virtual_machine(machine)?;
    }
    if let Some(container) = document.get("Container") {
        self::container(container)?;
    }
    if let Some(hosted) = hosted {
        self::hosted(hosted)?;
    }
    Ok(document)
}

fn hosted(hosted: &Value) -> Result<(), Violation> {
    let path = "HostedSystem";
    if hosted.get("OciSpecification").is_none() {
        check("HostedSystem", hosted, Extent::Whole)?;
        version(hosted)?;
        let Some(container) = hosted.get("Container") else {
            return wrong(path, "the field Container is missing");
        };
        return self::container(container);
    }
    check("LinuxHostedSystem", hosted, Extent::Whole)?;
    version(hosted)?;
    let specification = &hosted["OciSpecification"];
    if specification["ociVersion"].as_str().is_none_or(str::is_empty) {
        return wrong(path, "the configuration has no ociVersion");
    }
    if specification["root"]["path"].as_str().is_none_or(|path| !path.starts_with('/')) {
        return wrong(path, "the configuration's root has no path in the guest");
    }
    Ok(())
}

fn container(container: &Value) -> Result<(), Violation> {
    let path = "Container";
    let storage = &container["Storage"];
    if storage["Path"].as_str().is_none_or(str::is_empty) {
        return wrong(path, "it has no storage");
    }
    if storage["Layers"].as_array().is_none_or(Vec::is_empty) {
        return wrong(path, "its storage has no layers");
    }
    for layer in storage["Layers"].as_array().into_iter().flatten() {
        if !layer["Id"].as_str().is_some_and(is_guid) {
            return wrong(path, format!("a layer's id is not a GUID: {}", layer["Id"]));
        }
    }
    let processor = &container["Processor"];
    let bounds = ["Count", "Maximum", "Weight"];
    if bounds.iter().filter(|bound| processor.get(**bound).is_some()).count() > 1 {
        return wrong(path, "more than one bound of processors");
    }
    if let Some(namespace) = container["Networking"]["Namespace"].as_str()
        && !is_guid(namespace)
    {
        return wrong(path, format!("the network namespace is not a GUID: {namespace}"));
    }
    Ok(())
}

fn virtual_machine(machine: &Value) -> Result<(), Violation> {
    let path = "VirtualMachine";
    let chipset = &machine["Chipset"];
    if chipset.get("Uefi").is_some() == chipset.get("LinuxKernelDirect").is_some() {
        return wrong(path, "it boots either by firmware or by a kernel");
    }
    let topology = &machine["ComputeTopology"];
    let memory = topology["Memory"]["SizeInMB"].as_u64().unwrap_or_default();
    if memory == 0 || !memory.is_multiple_of(2) {
        return wrong(path, format!("{memory} MiB of memory are not an even number"));
    }
    if topology["Processor"]["Count"] == 0 {
        return wrong(path, "it has no processor");
    }
    for controller in
        machine["Devices"]["Scsi"].as_object().into_iter().flat_map(|map| map.values())
    {
        let units = controller["Attachments"].as_object().into_iter().flat_map(|map| map.keys());
        if let Some(unit) = units.into_iter().find(|unit| !is_unit(unit)) {
            return wrong(path, format!("{unit} is not a logical unit number from 0 to 63"));
        }
    }
    let pmem = &machine["Devices"]["VirtualPMem"];
    if pmem["MaximumCount"].as_u64().is_some_and(|count| count > 128) {
        return wrong(path, "more than 128 persistent memory devices");
    }
    Ok(())
}

fn version(document: &Value) -> Result<(), Violation> {
    if document["SchemaVersion"]["Major"] == 2 {
        return Ok(());
    }
    wrong("SchemaVersion", format!("{} is not of the schema 2", document["SchemaVersion"]))
}

/// Whether a text is a logical unit number of a SCSI controller.
pub fn is_unit(text: &str) -> bool {
    text.parse::<u8>().is_ok_and(|unit| unit < 64)
}

/// Whether a text is a GUID, without braces.
pub fn is_guid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [8, 4, 4, 4, 12]
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn wrong<T>(path: &str, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation::new(if path.is_empty() { "ComputeSystem" } else { path }, what))
}
