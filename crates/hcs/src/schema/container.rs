//! A Windows container, on the host or in a virtual machine.

use serde::{Deserialize, Serialize};

use super::{HvSocketSystemConfig, RegistryChanges, documents};

documents! {
    /// A Windows container.
    pub struct Container {
        /// What the guest calls itself.
        pub guest_os: Option<GuestOs>,
        /// Its root file system.
        pub storage: Option<Storage>,
        /// Folders of the host (or of the virtual machine).
        pub mapped_directories: Vec<MappedDirectory>,
        /// Named pipes of the host (or of the virtual machine).
        pub mapped_pipes: Vec<MappedPipe>,
        /// Its bound of memory.
        pub memory: Option<Memory>,
        /// Its bounds of processors.
        pub processor: Option<Processor>,
        /// Its network.
        pub networking: Option<Networking>,
        /// Hyper-V sockets into it.
        pub hv_socket: Option<HvSocket>,
        /// Changes to its registry.
        pub registry_changes: Option<RegistryChanges>,
        /// Devices of the host in it.
        pub assigned_devices: Vec<Device>,
    }

    /// What the guest calls itself.
    pub struct GuestOs {
        /// Its host name.
        pub host_name: String,
    }

    /// A container's root file system.
    pub struct Storage {
        /// The read-only layers, topmost first.
        pub layers: Vec<Layer>,
        /// The volume or folder with the writable layer.
        pub path: String,
        /// Bounds of reading and writing.
        #[serde(rename = "QoS")]
        pub qos: Option<StorageQoS>,
    }

    /// A read-only layer.
    pub struct Layer {
        /// Its GUID.
        pub id: String,
        /// Its folder.
        pub path: String,
    }

    /// Bounds of reading and writing.
    pub struct StorageQoS {
        /// Operations per second.
        pub iops_maximum: u64,
        /// Bytes per second.
        pub bandwidth_maximum: u64,
    }

    /// A folder that is seen in the container.
    pub struct MappedDirectory {
        /// The folder outside.
        pub host_path: String,
        /// Whose path it is.
        pub host_path_type: Option<PathType>,
        /// The folder in the container.
        pub container_path: String,
        /// Whether the container can't write.
        pub read_only: bool,
    }

    /// A named pipe that is seen in the container.
    pub struct MappedPipe {
        /// Its name in the container, without `\\.\pipe\`.
        pub container_pipe_name: String,
        /// The pipe outside.
        pub host_path: String,
        /// Whose path it is.
        pub host_path_type: Option<PathType>,
    }

    /// A bound of memory.
    pub struct Memory {
        /// In MiB.
        #[serde(rename = "SizeInMB")]
        pub size_in_mb: u64,
    }

    /// Bounds of processors; at most one of them is there.
    pub struct Processor {
        /// How many it sees.
        pub count: u32,
        /// What it may use of all processors, in 1/10,000.
        pub maximum: u32,
        /// Its weight against other containers, 1 to 10,000.
        pub weight: u32,
    }

    /// A container's network.
    pub struct Networking {
        /// Whether names without a domain are asked for.
        pub allow_unqualified_dns_query: bool,
        /// Domains to try, with commas between.
        pub dns_search_list: String,
        /// The container whose network it shares.
        pub network_shared_container_name: String,
        /// The Host Compute Network's namespace, a GUID.
        pub namespace: String,
    }

    /// Hyper-V sockets into a container.
    pub struct HvSocket {
        /// Who may use them.
        pub config: Option<HvSocketSystemConfig>,
        /// Whether PowerShell Direct works.
        pub enable_power_shell_direct: bool,
    }

    /// A device of the host in a container.
    pub struct Device {
        /// How it is named; by its class if absent.
        #[serde(rename = "Type")]
        pub kind: Option<DeviceType>,
        /// The class of devices, a GUID.
        pub interface_class_guid: String,
        /// Where it is plugged in.
        pub location_path: String,
    }
}

/// Whose path a mapped folder or pipe has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathType {
    /// An absolute path of the host.
    AbsolutePath,
    /// A path in the virtual SMB share.
    VirtualSmbPipeName,
}

/// How a device is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceType {
    /// By its class.
    ClassGuid,
    /// By the path of its instance.
    DeviceInstance,
}
