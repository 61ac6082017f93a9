//! What the engine knows by name, for the runtime specification's features document (features.md).

use oci_spec::runtime::{
    Arch, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, MemoryPolicyFlagType as ModeFlag,
    MemoryPolicyModeType as Mode,
};

use crate::rootfs::options;
use crate::seccomp;

/// The actions of seccomp rules.
pub const SECCOMP_ACTIONS: [Action; 9] = [
    Action::ScmpActAllow,
    Action::ScmpActErrno,
    Action::ScmpActKill,
    Action::ScmpActKillProcess,
    Action::ScmpActKillThread,
    Action::ScmpActLog,
    Action::ScmpActNotify,
    Action::ScmpActTrace,
    Action::ScmpActTrap,
];

/// The operators by which seccomp rules compare arguments.
pub const SECCOMP_OPERATORS: [Operator; 7] = [
    Operator::ScmpCmpEq,
    Operator::ScmpCmpGe,
    Operator::ScmpCmpGt,
    Operator::ScmpCmpLe,
    Operator::ScmpCmpLt,
    Operator::ScmpCmpMaskedEq,
    Operator::ScmpCmpNe,
];

/// The modes of memory policies.
pub const MEMORY_POLICY_MODES: [Mode; 7] = [
    Mode::MpolBind,
    Mode::MpolDefault,
    Mode::MpolInterleave,
    Mode::MpolLocal,
    Mode::MpolPreferred,
    Mode::MpolPreferredMany,
    Mode::MpolWeightedInterleave,
];

/// The flags of memory policies.
pub const MEMORY_POLICY_FLAGS: [ModeFlag; 3] =
    [ModeFlag::MpolFNumaBalancing, ModeFlag::MpolFRelativeNodes, ModeFlag::MpolFStaticNodes];

/// The mount options that are not left to the file systems.
pub fn mount_options() -> Vec<String> {
    options::known()
}

/// The architectures that seccomp filters may name, as far as the library in use knows them.
pub fn seccomp_architectures() -> Vec<Arch> {
    let all = [
        Arch::ScmpArchAarch64,
        Arch::ScmpArchArm,
        Arch::ScmpArchLoongarch64,
        Arch::ScmpArchM68k,
        Arch::ScmpArchMips,
        Arch::ScmpArchMips64,
        Arch::ScmpArchMips64n32,
        Arch::ScmpArchMipsel,
        Arch::ScmpArchMipsel64,
        Arch::ScmpArchMipsel64n32,
        Arch::ScmpArchParisc,
        Arch::ScmpArchParisc64,
        Arch::ScmpArchPpc,
        Arch::ScmpArchPpc64,
        Arch::ScmpArchPpc64le,
        Arch::ScmpArchRiscv64,
        Arch::ScmpArchS390,
        Arch::ScmpArchS390x,
        Arch::ScmpArchX32,
        Arch::ScmpArchX86,
        Arch::ScmpArchX86_64,
    ];
    all.into_iter().filter(|arch| seccomp::knows(*arch)).collect()
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
