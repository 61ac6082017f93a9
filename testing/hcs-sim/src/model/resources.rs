//! What is added to a virtual machine while it runs, and to its guest.

use serde_json::Value;

use super::system::{GuestOs, State, System, Systems};
use super::{Failure, Storage, text};
use crate::hresult;
use crate::schema::{self, Extent, Violation, is_guid, is_unit};

/// Where adapters of Windows guests are, before their GUIDs.
const ADAPTER: &str = "Guest/Network/";
/// Where the endpoints are that Windows guests were told of.
const ANNOUNCED: &str = "Guest/NetworkEndpoint/";

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
    Update,
}

impl Systems {
    /// Does what `HcsModifyComputeSystem` does.
    ///
    /// # Errors
    /// If the request isn't one, or the machine can't do it.
    pub fn modify(
        &mut self,
        number: u64,
        request: Option<&str>,
        storage: &Storage,
    ) -> Result<(), Failure> {
        let request = schema::parse("ModifySettingRequest", request.unwrap_or_default())?;
        let roots: Vec<String> = self.hosted(number).filter_map(root_path).collect();
        let system = self.get_mut(number)?;
        system.expect("changing", &[State::Running, State::Paused])?;
        let change = match text(&request, "RequestType") {
            Some("Add") => Change::Add,
            Some("Remove") => Change::Remove,
            _ => Change::Update,
        };
        let device = match text(&request, "ResourcePath") {
            None | Some("") => None,
            Some(path) => Some(device(system, change, path, &request["Settings"], storage)?),
        };
        let guest = match request.get("GuestRequest") {
            None => None,
            Some(request) => Some(guest_resource(system, request)?),
        };
        if device.is_none() && guest.is_none() {
            let message = "the request names neither a resource nor a guest's";
            return Err(Violation::new("ModifySettingRequest", message).into());
        }
        // All is known to be right before anything is changed. The guest comes after the device
        // when something is added, and before it when something is removed.
        let both = [device, guest];
        for (key, value) in both.iter().flatten() {
            system.may_change(change, key, value, &roots)?;
        }
        for (key, value) in both.into_iter().flatten() {
            // What a guest was told of an adapter goes with it.
            if let (Change::Remove, Some(adapter)) = (change, key.strip_prefix(ADAPTER)) {
                system.resources.remove(&format!("{ANNOUNCED}{adapter}"));
            }
            match change {
                Change::Add | Change::Update => system.resources.insert(key, value),
                Change::Remove => system.resources.remove(&key),
            };
        }
        Ok(())
    }
}

impl System {
    fn may_change(
        &self,
        change: Change,
        key: &str,
        value: &Value,
        roots: &[String],
    ) -> Result<(), Failure> {
        let there = self.resources.contains_key(key);
        match change {
            Change::Add if there => {
                Err(Failure::new(hresult::ALREADY_EXISTS, format!("{key} is there already")))
            }
            Change::Remove if !there => {
                Err(Failure::new(hresult::NOT_FOUND, format!("{key} is not there")))
            }
            Change::Remove
                if text(value, "ContainerRootPath")
                    .is_some_and(|root| roots.iter().any(|used| used == root)) =>
            {
                Err(Failure::new(hresult::BUSY, format!("a container is in {key}")))
            }
            _ => Ok(()),
        }
    }
}

/// The place of a change to the virtual machine, and what is put there.
fn device(
    system: &System,
    change: Change,
    path: &str,
    settings: &Value,
    storage: &Storage,
) -> Result<(String, Value), Failure> {
    let devices = &system.document["VirtualMachine"]["Devices"];
    let extent = if change == Change::Add { Extent::Whole } else { Extent::Part };
    let parts: Vec<&str> = path.split('/').collect();
    let no_such_place = || {
        let message = format!("the system {} has no place {path}", system.id);
        Failure::new(hresult::INVALID_ARGUMENT, message)
    };
    let typed = |name: &str| {
        if settings.is_null() && change == Change::Remove {
            return Ok(());
        }
        schema::check(name, settings, extent)
    };
    let mut key = path.to_owned();
    match parts.as_slice() {
        ["VirtualMachine", "Devices", "Scsi", controller, "Attachments", unit] => {
            let attached = devices["Scsi"].get(controller).ok_or_else(no_such_place)?;
            if !is_unit(unit) {
                return Err(no_such_place());
            }
            if attached["Attachments"].get(unit).is_some() && change == Change::Add {
                return Err(Failure::new(hresult::ALREADY_EXISTS, format!("{path} is in use")));
            }
            typed("Attachment")?;
            if change == Change::Add {
                let file = text(settings, "Path").unwrap_or_default();
                match settings["Type"].as_str() {
                    Some("PassThru") if super::is_physical(file) => {}
                    Some("PassThru") => {
                        let message = format!("{file} is not a disk of the host");
                        return Err(Failure::new(hresult::INVALID_ARGUMENT, message));
                    }
                    _ => storage.expect_file(file)?,
                }
                if settings["Type"] != "Iso" {
                    storage.expect_access(&system.id, file)?;
                }
            }
        }
        ["VirtualMachine", "Devices", "VirtualPMem", "Devices", device] => {
            let controller = devices.get("VirtualPMem").ok_or_else(no_such_place)?;
            let count = controller["MaximumCount"].as_u64().unwrap_or_default();
            let device: u64 = device.parse().map_err(|_| no_such_place())?;
            if device >= count {
                return Err(no_such_place());
            }
            typed("VirtualPMemDevice")?;
            if change == Change::Add {
                storage.expect_file(text(settings, "HostPath").unwrap_or_default())?;
            }
        }
        ["VirtualMachine", "Devices", kind @ ("VirtualSmb" | "Plan9"), "Shares"] => {
            devices.get(kind).ok_or_else(no_such_place)?;
            let (share, unnamed) = match *kind {
                "Plan9" => ("Plan9Share", "a 9p share without a name"),
                _ => ("VirtualSmbShare", "an SMB share without a name"),
            };
            schema::check(share, settings, extent)?;
            let Some(name) = text(settings, "Name") else {
                return Err(Violation::new(share, unnamed).into());
            };
            key = format!("{path}/{name}");
            if change == Change::Add {
                storage.expect_directory(text(settings, "Path").unwrap_or_default())?;
            }
        }
        ["VirtualMachine", "Devices", "MappedPipes", _] => {}
        ["VirtualMachine", "Devices", "NetworkAdapters", adapter] => {
            if !is_guid(adapter) {
                return Err(no_such_place());
            }
            typed("NetworkAdapter")?;
        }
        ["VirtualMachine", "ComputeTopology", "Memory", "SizeInMB"] if change == Change::Update => {
            if settings.as_u64().is_none_or(|size| size == 0 || !size.is_multiple_of(2)) {
                let message = format!("{settings} is not an even number of MiB");
                return Err(Violation::new(path, message).into());
            }
        }
        ["VirtualMachine", "ComputeTopology", "Processor", "Limits"]
            if change == Change::Update =>
        {
            typed("VirtualMachine_Processor")?;
        }
        ["VirtualMachine", "ComputeTopology", "Processor", "CpuGroup"] => typed("CpuGroup")?,
        _ => return Err(no_such_place()),
    }
    Ok((key, settings.clone()))
}

/// The place of a change in the guest, and what is put there.
fn guest_resource(system: &System, request: &Value) -> Result<(String, Value), Failure> {
    if system.document["VirtualMachine"].get("GuestConnection").is_none() {
        let message = format!("the system {} has no connection to a guest", system.id);
        return Err(Failure::new(hresult::NOT_CONFIGURED, message));
    }
    let os = system.guest();
    let request_type = match os {
        GuestOs::Linux => "LinuxGuestRequest",
        GuestOs::Windows => "WindowsGuestRequest",
    };
    schema::check(request_type, request, Extent::Whole)?;
    let settings = &request["Settings"];
    let kind = text(request, "ResourceType").unwrap_or_default();
    let (document, fields): (_, &[&str]) = match (os, kind) {
        (GuestOs::Linux, "MappedVirtualDisk") => ("LinuxMappedVirtualDisk", &["Controller", "Lun"]),
        (GuestOs::Linux, "MappedDirectory") => ("LinuxMappedDirectory", &["MountPath"]),
        (GuestOs::Linux, "VPMemDevice") => ("LinuxMappedVPMemDevice", &["DeviceNumber"]),
        (GuestOs::Linux, "CombinedLayers") => ("LinuxCombinedLayers", &["ContainerRootPath"]),
        (GuestOs::Linux, "Network") => ("LinuxNetworkAdapter", &["ID"]),
        (GuestOs::Windows, "MappedVirtualDisk") => ("MappedVirtualDisk", &["Lun"]),
        (GuestOs::Windows, "CombinedLayers") => ("CombinedLayers", &["ContainerRootPath"]),
        (GuestOs::Windows, "MappedDirectory") => ("MappedDirectory", &["ContainerPath"]),
        (GuestOs::Windows, "Network") => return windows_adapter(system, request),
        (GuestOs::Windows, "NetworkNamespace") => ("WindowsNetworkNamespace", &["ID"]),
        _ => {
            let message = format!("this stand-in's guest has no resource {kind}");
            return Err(Failure::new(hresult::NOT_IMPLEMENTED, message));
        }
    };
    schema::check(document, settings, Extent::Whole)?;
    let names: Vec<String> = fields
        .iter()
        .map(|field| match &settings[*field] {
            Value::String(text) => text.clone(),
            Value::Null => "0".to_owned(),
            other => other.to_string(),
        })
        .collect();
    Ok((format!("Guest/{kind}/{}", names.join("/")), settings.clone()))
}

/// The place of an adapter in a Windows guest, which is told of its endpoint before it is there.
fn windows_adapter(system: &System, request: &Value) -> Result<(String, Value), Failure> {
    let settings = &request["Settings"];
    schema::check("NetworkModifyRequest", settings, Extent::Whole)?;
    let adapter = text(settings, "AdapterId").unwrap_or_default();
    let announced = format!("{ANNOUNCED}{adapter}");
    let key = match (text(request, "RequestType"), text(settings, "RequestType")) {
        (Some("Add"), Some("PreAdd")) => announced,
        (Some("Add"), Some("Add")) if !system.resources.contains_key(&announced) => {
            let message = format!("the guest knows no endpoint of the adapter {adapter}");
            return Err(Failure::new(hresult::INVALID_ARGUMENT, message));
        }
        (Some("Add"), Some("Add")) | (Some("Remove"), Some("Remove")) => {
            format!("{ADAPTER}{adapter}")
        }
        _ => {
            let message = "the two request types don't go together";
            return Err(Violation::new("NetworkModifyRequest", message).into());
        }
    };
    Ok((key, settings.clone()))
}

/// Whether a virtual machine has what a container needs that is to be made in it.
///
/// # Errors
/// If something is missing.
pub fn can_host(machine: &System, document: &Value) -> Result<(), Failure> {
    let hosted = &document["HostedSystem"];
    let linux = hosted.get("OciSpecification").is_some();
    if (machine.guest() == GuestOs::Linux) != linux {
        let message = format!("the guest of {} is of another system", machine.id);
        return Err(Failure::new(hresult::INVALID_ARGUMENT, message));
    }
    let root = if linux {
        text(&hosted["OciSpecification"]["root"], "path")
    } else {
        text(&hosted["Container"]["Storage"], "Path")
    };
    let root = root.unwrap_or_default();
    if !machine.resources.contains_key(&format!("Guest/CombinedLayers/{root}")) {
        let message = format!("the guest of {} has no root file system {root}", machine.id);
        return Err(Failure::new(hresult::PATH_NOT_FOUND, message));
    }
    Ok(())
}

/// The root file system of a container in a guest.
fn root_path(system: &System) -> Option<String> {
    let hosted = &system.document["HostedSystem"];
    let linux = text(&hosted["OciSpecification"]["root"], "path");
    linux.or_else(|| text(&hosted["Container"]["Storage"], "Path")).map(str::to_owned)
}
