//! What the engine knows by name, for the runtime specification's features document (features.md).

use oci_spec::runtime::LinuxSeccompFilterFlag as Flag;

use crate::rootfs::options;
use crate::seccomp;

/// The mount options that are not left to the file systems.
pub fn mount_options() -> Vec<String> {
    options::known()
}

/// The flags of seccomp filters that are known, each with whether the running kernel supports it.
pub fn seccomp_flags() -> Vec<(Flag, bool)> {
    let all = [
        Flag::SeccompFilterFlagLog,
        Flag::SeccompFilterFlagSpecAllow,
        Flag::SeccompFilterFlagTsync,
        Flag::SeccompFilterFlagWaitKillableRecv,
    ];
    all.map(|flag| (flag, seccomp::supports(flag))).to_vec()
}
