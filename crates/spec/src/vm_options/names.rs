//! The names that annotations have for VM options: runhcs's own, and those of the Windows program
//! that runhcs is modelled on.
//!
//! Of the model's names some are honoured, some are refused, because they ask for a protection or a
//! function that isn't there, and some, which tune Hyper-V, are ignored. What begins like them and
//! is none of them is refused: a slip must not quietly give another VM than was asked for.

use oci_spec::runtime::Spec;

use crate::{Error, Result};

pub const KERNEL: &str = "io.runhcs.vm.kernel";
pub const INITRAMFS: &str = "io.runhcs.vm.initramfs";
pub const KERNEL_ARGS: &str = "io.runhcs.vm.kernel-args";
pub const MEMORY_MIB: &str = "io.runhcs.vm.memory-mib";
pub const MAX_MEMORY_MIB: &str = "io.runhcs.vm.max-memory-mib";
pub const PREALLOCATE_MEMORY: &str = "io.runhcs.vm.preallocate-memory";
pub const HUGE_PAGES: &str = "io.runhcs.vm.huge-pages";
pub const VCPUS: &str = "io.runhcs.vm.vcpus";
pub const MAX_VCPUS: &str = "io.runhcs.vm.max-vcpus";
pub const CPU_FEATURES: &str = "io.runhcs.vm.cpu-features";
pub const ACCELERATOR: &str = "io.runhcs.vm.accelerator";
pub const MACHINE: &str = "io.runhcs.vm.machine";
pub const CONSOLE: &str = "io.runhcs.vm.console";
pub const ENTROPY: &str = "io.runhcs.vm.entropy";
pub const DISK_BANDWIDTH: &str = "io.runhcs.vm.disk-bandwidth";
pub const DISK_IOPS: &str = "io.runhcs.vm.disk-iops";
pub const TEMPLATE: &str = "io.runhcs.vm.template";
pub const BOOT_TIMEOUT: &str = "io.runhcs.vm.boot-timeout-seconds";

/// Our own names of VM options. QEMU's path is not among them: who may annotate a pod is not
/// always one who may choose what the host executes.
pub const OWN: [&str; 18] = [
    ACCELERATOR,
    BOOT_TIMEOUT,
    CONSOLE,
    CPU_FEATURES,
    DISK_BANDWIDTH,
    DISK_IOPS,
    ENTROPY,
    HUGE_PAGES,
    INITRAMFS,
    KERNEL,
    KERNEL_ARGS,
    MACHINE,
    MAX_MEMORY_MIB,
    MAX_VCPUS,
    MEMORY_MIB,
    PREALLOCATE_MEMORY,
    TEMPLATE,
    VCPUS,
];

/// What the model's names begin with.
const MODEL_PREFIX: &str = "io.microsoft.virtualmachine.";

pub const MODEL_BOOT_FILES: &str = "io.microsoft.virtualmachine.lcow.bootfilesrootpath";
pub const MODEL_BOOT_FILES_SHORT: &str = "io.microsoft.virtualmachine.bootfilesrootpath";
pub const MODEL_KERNEL_ARGS: &str = "io.microsoft.virtualmachine.lcow.kernelbootoptions";
pub const MODEL_MEMORY: &str = "io.microsoft.virtualmachine.computetopology.memory.sizeinmb";
pub const MODEL_OVERCOMMIT: &str =
    "io.microsoft.virtualmachine.computetopology.memory.allowovercommit";
pub const MODEL_PHYSICAL: &str = "io.microsoft.virtualmachine.fullyphysicallybacked";
pub const MODEL_VCPUS: &str = "io.microsoft.virtualmachine.computetopology.processor.count";
pub const MODEL_BANDWIDTH: &str = "io.microsoft.virtualmachine.storageqos.bandwidthmaximum";
pub const MODEL_IOPS: &str = "io.microsoft.virtualmachine.storageqos.iopsmaximum";

const HONOURED: [&str; 9] = [
    MODEL_BANDWIDTH,
    MODEL_BOOT_FILES,
    MODEL_BOOT_FILES_SHORT,
    MODEL_IOPS,
    MODEL_KERNEL_ARGS,
    MODEL_MEMORY,
    MODEL_OVERCOMMIT,
    MODEL_PHYSICAL,
    MODEL_VCPUS,
];

/// Names below the prefix that are refused unless their value is `false`, and why.
const REFUSED: [(&str, &str); 12] = [
    ("fileshares.disablewritable", "a container's files are shared with its VM; mount them `ro`"),
    ("kerneldrivers", "the guest's modules are those of its image; see runhcs-guest-image"),
    ("lcow.dmverity-create-args", CONFIDENTIAL),
    ("lcow.dmverity-mode", CONFIDENTIAL),
    ("lcow.dmverity-rootfs-vhd", CONFIDENTIAL),
    ("lcow.enforcer", CONFIDENTIAL),
    ("lcow.gueststatefile", CONFIDENTIAL),
    ("lcow.hcl-enabled", CONFIDENTIAL),
    ("lcow.securitypolicy", CONFIDENTIAL),
    ("saveastemplate", "VMs can't be saved as templates by annotation"),
    ("storage.scratch.encrypted", "scratch disks aren't encrypted"),
    ("templateid", "VMs can't be made from templates by annotation"),
];
const CONFIDENTIAL: &str = "confidential VMs are not supported";

/// Names below the prefix that tune Hyper-V or concern Windows guests.
const IGNORED: [&str; 32] = [
    "computetopology.memory.enablecolddiscardhint",
    "computetopology.memory.enabledeferredcommit",
    "computetopology.memory.highmmiobaseinmb",
    "computetopology.memory.highmmiogapinmb",
    "computetopology.memory.lowmmiogapinmb",
    "computetopology.numa.count-of-memory-blocks",
    "computetopology.numa.count-of-processors",
    "computetopology.numa.mapped-physical-nodes",
    "computetopology.numa.preferred-physical-nodes",
    "computetopology.processor.limit",
    "computetopology.processor.numa.max-processors-per-node",
    "computetopology.processor.numa.max-size-per-node",
    "computetopology.processor.weight",
    "cpugroup.id",
    "devices.virtualpmem.maximumcount",
    "devices.virtualpmem.maximumsizebytes",
    "disablecompartmentnamespace",
    "dump-directory-path",
    "lcow.hostnetwork",
    "lcow.kerneldirectboot",
    "lcow.preferredrootfstype",
    "lcow.privileged",
    "lcow.timesync.disable",
    "lcow.vpcienabled",
    "lcow.vpmem.nomultimapping",
    "resource-partition-id",
    "wcow.gueststatefile",
    "wcow.isolation_type",
    "wcow.no_secure_boot",
    "wcow.timezone.noinherit",
    "wcow.virtualSMB.nodirectmap",
    "wcow.writable_efi",
];
/// Such as `forwardlogs.enabled`.
const IGNORED_FAMILY: &str = "forwardlogs.";

/// The annotations of the model's that have no effect on this system, in order.
///
/// # Errors
/// One that can't be had here, or that the model doesn't know either.
pub fn ignored(spec: &Spec) -> Result<Vec<&str>> {
    let mut ignored = Vec::new();
    let mut all: Vec<(&str, &str)> =
        spec.annotations().iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    // So that the same document always gives the same error.
    all.sort_unstable();
    for (name, value) in all {
        let Some(rest) = name.strip_prefix(MODEL_PREFIX) else { continue };
        if HONOURED.contains(&name) {
            continue;
        }
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == rest) {
            if value != "false" {
                return Err(Error::invalid(name, format!("{value:?} can't be had: {why}")));
            }
        } else if IGNORED.contains(&rest) || rest.starts_with(IGNORED_FAMILY) {
            ignored.push(name);
        } else {
            return Err(Error::invalid(
                name,
                "no such annotation; docs/configuration.md has those that there are",
            ));
        }
    }
    Ok(ignored)
}
