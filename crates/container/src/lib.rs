//! The Linux container engine: runs one container as a process of the kernel it runs on, host or
//! guest. Synchronous; starts no thread; knows neither the command line nor where state is kept.
//!
//! [`Plan::new`] checks a configuration and says, in a serialisable [`Resources`], what creating
//! the container is going to leave in the system. The caller stores that, and only then calls
//! [`Plan::create`]. From the stored [`Resources`] a later process reaches the [`Container`].

mod barrier;
mod capabilities;
mod cgroups;
mod channel;
mod child;
mod clone;
mod container;
mod creation;
mod credentials;
mod criu;
mod error;
mod exec;
pub mod features;
mod hooks;
mod ids;
mod init;
mod intel_rdt;
mod labels;
mod namespaces;
mod net_devices;
mod network;
mod own_program;
mod passwd;
mod plan;
mod proc;
mod process_group;
mod program;
mod resources;
mod rights;
mod rootfs;
mod rtnetlink;
mod scheduling;
mod seccomp;
mod spawn;
mod sysctls;
mod terminal;
mod user_namespace;

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::Spec;
use runhcs_compute::ContainerId;
use serde::{Deserialize, Serialize};

pub use cgroups::{CgroupDriver, CgroupPaths, ExecCgroup, MemoryEvents, OomCounts, SystemdScope};
pub use container::Container;
pub use criu::{CheckpointOptions, CriuOptions, ManageCgroups, PageServer, RestoreOptions};
pub use exec::ExecOptions;
pub use hooks::{HookPoint, HookSubject};
pub use ids::in_user_namespace;
pub use net_devices::{MovedDevices, NetDevices};
pub use network::loopback_up;
pub use own_program::execute_sealed;
pub use plan::{Plan, Resources};
pub use process_group::{ProcessGroup, ProcessGroupOptions};
pub use resources::OomWatch;
pub use rootfs::map_mount;
pub use terminal::receive as receive_terminal;

/// What the engine needs to create a container.
#[derive(Debug)]
pub struct CreateOptions<'a> {
    /// Its id.
    pub id: &'a ContainerId,
    /// Its configuration, with absolute paths.
    pub spec: &'a Spec,
    /// The bundle's directory; for hooks and the state they are given.
    pub bundle: &'a Path,
    /// A private directory that exists; the engine keeps the start FIFO in it.
    pub runtime_dir: &'a Path,
    /// The process's stdio, or `None` to pass on the caller's.
    pub stdio: Option<Stdio>,
    /// A connected unix socket to send the terminal's master to, if the process has a terminal.
    pub console_socket: Option<OwnedFd>,
    /// The descriptors after stderr that the process inherits.
    pub inherited_fds: InheritedFds,
    /// Change the root by MS_MOVE and chroot(2) instead of pivot_root(2).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Who makes its control groups.
    pub cgroup_driver: CgroupDriver,
    /// Do without control groups if the caller may not make them and nothing needs them.
    pub rootless: bool,
}

/// Descriptors after stderr that a process inherits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InheritedFds {
    /// How many sockets of systemd's socket activation come first (sd_listen_fds(3)); the process
    /// is told of them.
    pub listen: u32,
    /// How many others come after them.
    pub others: u32,
}

impl InheritedFds {
    pub(crate) fn count(self) -> u32 {
        self.listen.saturating_add(self.others)
    }
}

/// Stdio for a process without a terminal.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// A container's init process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// Its pid in the caller's pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`).
    pub start_time: u64,
}
