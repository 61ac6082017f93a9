//! Windows containers: on the host in a server silo (Argon), or in a virtual machine (Xenon).

use oci_spec::runtime::{Spec, WindowsNetwork};

use crate::options::{Annotations, Limits, names};
use crate::schema::{
    ComputeSystem, Container, Device, DeviceType, GuestOs, HostedSystem, Layer, MappedDirectory,
    MappedPipe, Networking, RegistryChanges, RegistryHive, RegistryValue, Storage, Version,
};
use crate::{Invalid, Result};

/// What has been prepared for a container before its document is made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowsContainer {
    /// Its read-only layers, where the container's side sees them.
    pub layers: Vec<Layer>,
    /// The volume (on the host) or folder (in a guest) of its root file system.
    pub root: String,
    /// Folders and files it sees.
    pub directories: Vec<MappedDirectory>,
    /// Named pipes it sees.
    pub pipes: Vec<MappedPipe>,
    /// Its network namespace, a GUID.
    pub namespace: Option<String>,
    /// The processors of the host or of its virtual machine.
    pub processors: u32,
}

/// The document of a container on this host.
///
/// # Errors
/// A root that isn't a volume; otherwise as for [`windows_container`].
pub fn argon(spec: &Spec, owner: &str, prepared: WindowsContainer) -> Result<ComputeSystem> {
    if !is_volume(&prepared.root) {
        let message =
            format!(r"{:?} is not a volume of the form \\?\Volume{{GUID}}\", prepared.root);
        return Err(Invalid::new("root.path", message));
    }
    let root = format!(r"{}\", prepared.root.trim_end_matches('\\'));
    Ok(ComputeSystem {
        owner: owner.to_owned(),
        schema_version: Some(Version::V2_1),
        container: Some(windows_container(spec, WindowsContainer { root, ..prepared })?),
        should_terminate_on_last_handle_closed: true,
        ..ComputeSystem::default()
    })
}

/// The document of a container in the virtual machine `vm_id`.
///
/// # Errors
/// As for [`windows_container`].
pub fn xenon(
    spec: &Spec,
    owner: &str,
    vm_id: &str,
    prepared: WindowsContainer,
) -> Result<ComputeSystem> {
    Ok(ComputeSystem {
        owner: owner.to_owned(),
        schema_version: Some(Version::V2_1),
        hosting_system_id: vm_id.to_owned(),
        hosted_system: Some(HostedSystem {
            schema_version: Some(Version::V2_1),
            container: Some(windows_container(spec, prepared)?),
            ..HostedSystem::default()
        }),
        should_terminate_on_last_handle_closed: true,
        ..ComputeSystem::default()
    })
}

/// What both have in common.
///
/// # Errors
/// A configuration without `windows`, a read-only root, bounds that exclude each other, a device of
/// an unknown kind, credentials.
pub fn windows_container(spec: &Spec, prepared: WindowsContainer) -> Result<Container> {
    let Some(windows) = spec.windows() else {
        return Err(Invalid::new("windows", "missing; a Windows container needs it"));
    };
    if spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
        let message = "a Windows container's root can't be read-only";
        return Err(Invalid::new("root.readonly", message));
    }
    if windows.credential_spec().as_ref().is_some_and(|credentials| !credentials.is_empty()) {
        let message = "group-managed service accounts are not supported";
        return Err(Invalid::new("windows.credentialSpec", message));
    }
    let limits = Limits::of_container(spec)?;
    let host_name = spec.hostname().clone().filter(|name| !name.is_empty());
    Ok(Container {
        guest_os: host_name.map(|host_name| GuestOs { host_name }),
        storage: Some(Storage {
            layers: prepared.layers,
            path: prepared.root,
            qos: limits.storage(),
        }),
        mapped_directories: prepared.directories,
        mapped_pipes: prepared.pipes,
        memory: limits.memory(),
        processor: limits.processor(prepared.processors),
        networking: networking(spec, prepared.namespace),
        hv_socket: None,
        registry_changes: Some(registry(spec)),
        assigned_devices: devices(spec)?,
    })
}

fn networking(spec: &Spec, namespace: Option<String>) -> Option<Networking> {
    let network = spec.windows().as_ref().and_then(|windows| windows.network().as_ref());
    let Some(network) = network else {
        return namespace.map(|namespace| Networking { namespace, ..Networking::default() });
    };
    let shared = network.network_shared_container_name().clone();
    Some(Networking {
        allow_unqualified_dns_query: allows_unqualified(network),
        dns_search_list: network.dns_search_list().clone().unwrap_or_default().join(","),
        network_shared_container_name: shared.unwrap_or_default(),
        namespace: namespace.unwrap_or_default(),
    })
}

/// The field has no getter.
fn allows_unqualified(network: &WindowsNetwork) -> bool {
    let fields = serde_json::to_value(network).unwrap_or_default();
    fields["allowUnqualifiedDNSQuery"] == true
}

fn devices(spec: &Spec) -> Result<Vec<Device>> {
    let devices = spec.windows().as_ref().and_then(|windows| windows.devices().as_ref());
    let devices = devices.into_iter().flatten().enumerate();
    devices
        .map(|(index, device)| match device.id_type().as_str() {
            "class" | "vpci-class-guid" => {
                Ok(Device { interface_class_guid: device.id().clone(), ..Device::default() })
            }
            "vpci-location-path" => Ok(Device {
                kind: Some(DeviceType::DeviceInstance),
                location_path: device.id().clone(),
                ..Device::default()
            }),
            other => {
                let message = format!(
                    "{other:?} is unknown; it is `class`, `vpci-class-guid` or `vpci-location-path`"
                );
                Err(Invalid::new(format!("windows.devices[{index}].idType"), message))
            }
        })
        .collect()
}

fn registry(spec: &Spec) -> RegistryChanges {
    /// Microsoft Learn, "Collecting User-Mode Dumps".
    const DUMPS: &str = r"Microsoft\Windows\Windows Error Reporting\LocalDumps";
    // Services get as long to end as the caller waits: without this the container's own limit of
    // five seconds would end them before a polite request has been answered.
    let mut add_values = vec![RegistryValue::string(
        RegistryHive::System,
        r"ControlSet001\Control",
        "WaitToKillServiceTimeout",
        i32::MAX.to_string(),
    )];
    if let Some(folder) = Annotations::of(spec).text(names::PROCESS_DUMPS) {
        let software = RegistryHive::Software;
        add_values.extend([
            RegistryValue::string(software, DUMPS, "DumpFolder", folder),
            // 2 is a full dump.
            RegistryValue::dword(software, DUMPS, "DumpType", 2),
            RegistryValue::dword(software, DUMPS, "DumpCount", 10),
        ]);
    }
    RegistryChanges { add_values, delete_keys: Vec::new() }
}

/// Whether a path is a volume's: `\\?\Volume{8-4-4-4-12 hexadecimal digits}` and perhaps a
/// backslash.
fn is_volume(path: &str) -> bool {
    let path = path.strip_suffix('\\').unwrap_or(path);
    let guid = path.strip_prefix(r"\\?\Volume{").and_then(|rest| rest.strip_suffix('}'));
    guid.is_some_and(|guid| guid.len() == 36 && uuid::Uuid::try_parse(guid).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_told_from_folders() {
        for path in [
            r"\\?\Volume{8f6a2b2c-1f0e-4b6a-9d3b-0123456789ab}\",
            r"\\?\Volume{8F6A2B2C-1F0E-4B6A-9D3B-0123456789AB}",
        ] {
            assert!(is_volume(path), "{path}");
        }
        for path in [
            "",
            r"C:\a",
            r"\\?\Volume{8f6a2b2c}\",
            r"\\?\Volume{8f6a2b2c-1f0e-4b6a-9d3b-0123456789ab}\a",
            r"\\?\Volume{8f6a2b2c1f0e4b6a9d3b0123456789ab}\",
        ] {
            assert!(!is_volume(path), "{path}");
        }
    }
}
