//! A virtual machine: its processors, its memory and what surrounds them.

use serde::{Deserialize, Serialize};

use super::{Chipset, Devices, RegistryChanges, StorageQoS, Version, documents};

documents! {
    /// A virtual machine.
    pub struct VirtualMachine {
        /// The version of the virtual hardware; the newest if absent.
        pub version: Option<Version>,
        /// Whether a reset of the guest stops the machine.
        pub stop_on_reset: bool,
        /// How it boots.
        pub chipset: Option<Chipset>,
        /// Its processors and memory.
        pub compute_topology: Option<Topology>,
        /// Its devices.
        pub devices: Option<Devices>,
        /// Files with its firmware's state.
        pub guest_state: Option<GuestState>,
        /// Changes to the registry of a Windows guest.
        pub registry_changes: Option<RegistryChanges>,
        /// Bounds of all its disks together.
        #[serde(rename = "StorageQoS")]
        pub storage_qos: Option<StorageQoS>,
        /// Where to save what a crash leaves.
        pub debug_options: Option<DebugOptions>,
        /// How the service talks to the guest's compute service; it doesn't if absent.
        pub guest_connection: Option<GuestConnection>,
        /// Isolation of the machine from the host.
        pub security_settings: Option<SecuritySettings>,
        /// The resource partition it belongs to, a GUID.
        pub resource_partition_id: String,
    }

    /// Processors, memory and how they belong together.
    pub struct Topology {
        /// Memory.
        pub memory: Option<VirtualMachineMemory>,
        /// Processors.
        pub processor: Option<VirtualMachineProcessor>,
        /// Nodes of non-uniform memory.
        pub numa: Option<Numa>,
    }

    /// A virtual machine's memory.
    pub struct VirtualMachineMemory {
        /// Its size in MiB, an even number.
        #[serde(rename = "SizeInMB")]
        pub size_in_mb: u64,
        /// What stands behind it.
        pub backing: Option<MemoryBackingType>,
        /// Whether the host backs it with virtual memory.
        pub allow_overcommit: bool,
        /// Whether the guest's hints on pages in use are heard.
        pub enable_hot_hint: bool,
        /// Whether the guest's hints on pages not in use are heard.
        pub enable_cold_hint: bool,
        /// Whether pages that the guest says are not in use are discarded.
        pub enable_cold_discard_hint: bool,
        /// Whether memory is committed when it is first used.
        pub enable_deferred_commit: bool,
        /// The size in MiB of the gap for devices below 4 GiB.
        #[serde(rename = "LowMmioGapInMB")]
        pub low_mmio_gap_in_mb: u64,
        /// Where the gap for devices above 4 GiB begins, in MiB.
        #[serde(rename = "HighMmioBaseInMB")]
        pub high_mmio_base_in_mb: u64,
        /// The size in MiB of that gap.
        #[serde(rename = "HighMmioGapInMB")]
        pub high_mmio_gap_in_mb: u64,
        /// Which distances between memory nodes the firmware's table shows.
        pub slit_type: Option<VirtualSlitType>,
    }

    /// A virtual machine's processors.
    pub struct VirtualMachineProcessor {
        /// How many.
        pub count: u32,
        /// The most it may use of them, in 1/10,000 of each; no bound if 0.
        pub limit: u64,
        /// Its weight against other machines, 1 to 10,000; the service's default (100) if 0.
        pub weight: u64,
        /// What is kept for it, in 1/10,000 of each.
        pub reservation: u64,
        /// The group of host processors it is bound to.
        pub cpu_group: Option<CpuGroup>,
        /// How processors are spread over memory nodes.
        pub numa_processors_settings: Option<NumaProcessors>,
    }

    /// A group of host processors.
    pub struct CpuGroup {
        /// Its GUID.
        pub id: String,
    }

    /// Nodes of non-uniform memory.
    pub struct Numa {
        /// How many nodes.
        pub virtual_node_count: u8,
        /// Nodes of the host to prefer, by number.
        pub preferred_physical_nodes: Vec<u32>,
        /// The nodes, one by one.
        pub settings: Vec<NumaSetting>,
        /// The most memory of a node, in MiB.
        pub max_size_per_node: u64,
    }

    /// The bound that makes the service spread processors over nodes by itself.
    pub struct NumaProcessors {
        /// How many processors a node has.
        #[serde(rename = "count_per_node")]
        pub count_per_node: NumaRange,
    }

    /// A range of numbers.
    pub struct NumaRange {
        /// Its upper end.
        #[serde(rename = "max")]
        pub max: u32,
    }

    /// Files with a machine's state outside its memory.
    pub struct GuestState {
        /// The file (`.vmgs`) with the firmware's state.
        pub guest_state_file_path: String,
        /// `FileMode` or `BlockStorage`.
        pub guest_state_file_type: String,
        /// The file (`.vmrs`) for the machine's saved state.
        pub runtime_state_file_path: String,
        /// Whether changes to it are lost with the machine.
        pub force_transient_state: bool,
    }

    /// Where to save what a crash leaves.
    pub struct DebugOptions {
        /// The machine's state when the guest has crashed.
        pub bugcheck_saved_state_file_name: String,
        /// The same when the guest could write no dump itself.
        pub bugcheck_no_crashdump_saved_state_file_name: String,
    }

    /// How the service talks to the guest's compute service.
    pub struct GuestConnection {
        /// Over a Hyper-V socket, as Linux guests do.
        pub use_vsock: bool,
        /// Whether a pause of the machine is told to the guest first.
        pub use_connected_suspend: bool,
    }

    /// Isolation of a machine from its host.
    pub struct SecuritySettings {
        /// Whether it has a TPM.
        pub enable_tpm: bool,
        /// Isolation by the processor.
        pub isolation: Option<IsolationSettings>,
    }

    /// Isolation of a machine from its host by the processor.
    pub struct IsolationSettings {
        /// `SecureNestedPaging`, `VirtualizationBasedSecurity` or `GuestStateOnly`.
        pub isolation_type: String,
        /// What goes into the launch measurement, Base64.
        pub launch_data: String,
        /// Whether the paravisor runs in the guest; the service decides if absent.
        pub hcl_enabled: Option<bool>,
    }
}

/// One memory node of a virtual machine. Every field counts, also where it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NumaSetting {
    /// Its number in the machine.
    pub virtual_node_number: u32,
    /// The host's node that it lies on.
    pub physical_node_number: u32,
    /// The socket it belongs to.
    pub virtual_socket_number: u32,
    /// How many processors it has.
    pub count_of_processors: u32,
    /// Its memory, in blocks of 1 MiB.
    pub count_of_memory_blocks: u64,
    /// What stands behind its memory.
    pub memory_backing_type: MemoryBackingType,
}

/// What stands behind a machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryBackingType {
    /// The host's physical memory.
    Physical,
    /// The host's virtual memory.
    Virtual,
    /// Both.
    Hybrid,
}

/// Which distances between memory nodes the firmware's table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VirtualSlitType {
    /// No table.
    None,
    /// The host firmware's.
    Firmware,
    /// Measured ones.
    Measured,
    /// The host firmware's, or measured ones if it has none.
    FirmwareFallbackMeasured,
}
