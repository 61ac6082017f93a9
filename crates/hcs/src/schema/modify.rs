//! Changes to a compute system that runs, and what the guest has to do for them.

use serde::{Deserialize, Serialize};

use super::{Layer, documents};

/// What is passed to `HcsModifyComputeSystem`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ModifySettingRequest {
    /// The place in the system's document; empty if only the guest has something to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_path: String,
    /// What to do there.
    pub request_type: RequestType,
    /// The new content of the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<serde_json::Value>,
    /// What the guest has to do: after an addition, before a removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_request: Option<GuestModifySettingRequest>,
}

/// What to do with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestType {
    /// Add it.
    Add,
    /// Remove it.
    Remove,
    /// Change it.
    Update,
    /// Announce a network adapter before it is added.
    PreAdd,
}

/// What the guest has to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GuestModifySettingRequest {
    /// What with the resource.
    pub request_type: RequestType,
    /// The kind of resource.
    pub resource_type: GuestResource,
    /// The resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<serde_json::Value>,
}

/// A resource of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestResource {
    /// A folder of the host.
    MappedDirectory,
    /// A disk.
    MappedVirtualDisk,
    /// A persistent memory device.
    VPMemDevice,
    /// Layers put together to a root file system.
    CombinedLayers,
    /// A network adapter.
    Network,
    /// A network namespace.
    NetworkNamespace,
}

documents! {
    /// A disk in a Linux guest. Controller and number are 0 if absent.
    pub struct LinuxMappedVirtualDisk {
        /// Where the guest mounts it.
        pub mount_path: String,
        /// The logical unit number.
        pub lun: u8,
        /// The controller's number.
        pub controller: u8,
        /// Whether it is mounted read-only.
        pub read_only: bool,
    }

    /// A disk in a Windows guest.
    pub struct WindowsMappedVirtualDisk {
        /// Where the guest mounts it.
        pub container_path: String,
        /// The logical unit number.
        pub lun: u8,
    }

    /// A 9p share in a Linux guest.
    pub struct LinuxMappedDirectory {
        /// Where the guest mounts it.
        pub mount_path: String,
        /// The Hyper-V socket port it is served on.
        pub port: u32,
        /// Its name.
        pub share_name: String,
        /// Whether it is mounted read-only.
        pub read_only: bool,
    }

    /// A persistent memory device in a Linux guest.
    pub struct LinuxMappedVPMemDevice {
        /// The device's number.
        pub device_number: u32,
        /// Where the guest mounts it.
        pub mount_path: String,
    }

    /// Layers put together to a root file system, in either guest.
    pub struct CombinedLayers {
        /// Where the root file system appears.
        pub container_root_path: String,
        /// The read-only layers in the guest, topmost first.
        pub layers: Vec<Layer>,
        /// The folder in the guest for what is written.
        pub scratch_path: String,
    }

    /// A network adapter in a Linux guest.
    pub struct LinuxNetworkAdapter {
        /// The network namespace it goes into.
        #[serde(rename = "NamespaceID")]
        pub namespace_id: String,
        /// Its GUID.
        #[serde(rename = "ID")]
        pub id: String,
        /// Its hardware address.
        pub mac_address: String,
        /// The domain of names.
        #[serde(rename = "DNSSuffix")]
        pub dns_suffix: String,
        /// Name servers, with commas between.
        #[serde(rename = "DNSServerList")]
        pub dns_server_list: String,
        /// Its addresses.
        #[serde(rename = "IPConfigs")]
        pub ip_configs: Vec<IpConfig>,
        /// Its routes.
        pub routes: Vec<Route>,
    }

    /// An address.
    pub struct IpConfig {
        /// The address.
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        /// How many of its bits are the network's.
        pub prefix_length: u8,
    }

    /// A route.
    pub struct Route {
        /// The gateway.
        pub next_hop: String,
        /// Where it leads, as address/bits.
        pub destination_prefix: String,
        /// Its cost.
        pub metric: u16,
    }

    /// A network adapter in a Windows guest.
    pub struct NetworkModifyRequest {
        /// Its GUID.
        pub adapter_id: String,
        /// What to do with it.
        pub request_type: Option<RequestType>,
        /// The endpoint's properties, as the Host Compute Network gives them.
        pub settings: Option<serde_json::Value>,
    }
}
