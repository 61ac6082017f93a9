//! The names of the annotations that are understood: those of the Windows program that runhcs is
//! modelled on, so that what is written for it keeps its meaning.

pub const MEMORY_SIZE: &str = "io.microsoft.virtualmachine.computetopology.memory.sizeinmb";
pub const ALLOW_OVERCOMMIT: &str =
    "io.microsoft.virtualmachine.computetopology.memory.allowovercommit";
pub const DEFERRED_COMMIT: &str =
    "io.microsoft.virtualmachine.computetopology.memory.enabledeferredcommit";
pub const COLD_DISCARD_HINT: &str =
    "io.microsoft.virtualmachine.computetopology.memory.enablecolddiscardhint";
pub const LOW_MMIO_GAP: &str = "io.microsoft.virtualmachine.computetopology.memory.lowmmiogapinmb";
pub const HIGH_MMIO_BASE: &str =
    "io.microsoft.virtualmachine.computetopology.memory.highmmiobaseinmb";
pub const HIGH_MMIO_GAP: &str =
    "io.microsoft.virtualmachine.computetopology.memory.highmmiogapinmb";
pub const FULLY_PHYSICALLY_BACKED: &str = "io.microsoft.virtualmachine.fullyphysicallybacked";

pub const PROCESSOR_COUNT: &str = "io.microsoft.virtualmachine.computetopology.processor.count";
pub const PROCESSOR_LIMIT: &str = "io.microsoft.virtualmachine.computetopology.processor.limit";
pub const PROCESSOR_WEIGHT: &str = "io.microsoft.virtualmachine.computetopology.processor.weight";
pub const CPU_GROUP: &str = "io.microsoft.virtualmachine.cpugroup.id";
pub const RESOURCE_PARTITION: &str = "io.microsoft.virtualmachine.resource-partition-id";

pub const NUMA_MAX_PROCESSORS: &str =
    "io.microsoft.virtualmachine.computetopology.processor.numa.max-processors-per-node";
pub const NUMA_MAX_SIZE: &str =
    "io.microsoft.virtualmachine.computetopology.processor.numa.max-size-per-node";
pub const NUMA_PREFERRED: &str =
    "io.microsoft.virtualmachine.computetopology.numa.preferred-physical-nodes";
pub const NUMA_MAPPED: &str =
    "io.microsoft.virtualmachine.computetopology.numa.mapped-physical-nodes";
pub const NUMA_PROCESSORS: &str =
    "io.microsoft.virtualmachine.computetopology.numa.count-of-processors";
pub const NUMA_MEMORY_BLOCKS: &str =
    "io.microsoft.virtualmachine.computetopology.numa.count-of-memory-blocks";

pub const STORAGE_BANDWIDTH: &str = "io.microsoft.virtualmachine.storageqos.bandwidthmaximum";
pub const STORAGE_IOPS: &str = "io.microsoft.virtualmachine.storageqos.iopsmaximum";
pub const NO_WRITABLE_SHARES: &str = "io.microsoft.virtualmachine.fileshares.disablewritable";
pub const DUMP_DIRECTORY: &str = "io.microsoft.virtualmachine.dump-directory-path";
pub const PROCESS_DUMPS: &str = "io.microsoft.container.processdumplocation";

pub const BOOT_FILES: &str = "io.microsoft.virtualmachine.bootfilesrootpath";
pub const KERNEL_DIRECT_BOOT: &str = "io.microsoft.virtualmachine.lcow.kerneldirectboot";
pub const ROOT_FS_TYPE: &str = "io.microsoft.virtualmachine.lcow.preferredrootfstype";
pub const KERNEL_OPTIONS: &str = "io.microsoft.virtualmachine.lcow.kernelbootoptions";
pub const PMEM_COUNT: &str = "io.microsoft.virtualmachine.devices.virtualpmem.maximumcount";
pub const PMEM_SIZE: &str = "io.microsoft.virtualmachine.devices.virtualpmem.maximumsizebytes";
pub const PCI_ENABLED: &str = "io.microsoft.virtualmachine.lcow.vpcienabled";
pub const NO_TIME_SYNC: &str = "io.microsoft.virtualmachine.lcow.timesync.disable";
pub const PRIVILEGED: &str = "io.microsoft.virtualmachine.lcow.privileged";

pub const NO_COMPARTMENT_NAMESPACE: &str =
    "io.microsoft.virtualmachine.disablecompartmentnamespace";
pub const NO_DIRECT_MAP: &str = "io.microsoft.virtualmachine.wcow.virtualSMB.nodirectmap";

pub const CONTAINER_MEMORY: &str = "io.microsoft.container.memory.sizeinmb";
pub const CONTAINER_PROCESSOR_COUNT: &str = "io.microsoft.container.processor.count";
pub const CONTAINER_PROCESSOR_LIMIT: &str = "io.microsoft.container.processor.limit";
pub const CONTAINER_PROCESSOR_WEIGHT: &str = "io.microsoft.container.processor.weight";
pub const CONTAINER_BANDWIDTH: &str = "io.microsoft.container.storage.qos.bandwidthmaximum";
pub const CONTAINER_IOPS: &str = "io.microsoft.container.storage.qos.iopsmaximum";

/// What asks for protection of the guest from the host. To go on without it would be weaker than
/// what was asked for, so these are refused.
pub const CONFIDENTIAL: [&str; 9] = [
    "io.microsoft.virtualmachine.lcow.securitypolicy",
    "io.microsoft.virtualmachine.lcow.enforcer",
    "io.microsoft.virtualmachine.lcow.gueststatefile",
    "io.microsoft.virtualmachine.lcow.dmverity-mode",
    "io.microsoft.virtualmachine.lcow.hcl-enabled",
    "io.microsoft.virtualmachine.storage.scratch.encrypted",
    "io.microsoft.virtualmachine.wcow.securitypolicy",
    "io.microsoft.virtualmachine.wcow.isolation_type",
    "io.microsoft.virtualmachine.wcow.gueststatefile",
];
