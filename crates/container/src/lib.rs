//! The Linux container engine: runs one container as a process of the kernel it runs on, host or
//! guest. Synchronous; starts no thread; knows neither the command line nor where state is kept.
//!
//! [`Plan::new`] checks a configuration and says, in a serialisable [`Resources`], what creating
//! the container is going to leave in the system. The caller stores that, and only then calls
//! [`Plan::create`]. From the stored [`Resources`] a later process reaches the [`Container`].

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use runhcs_compute::{ComputeSystem, ContainerId, Result, Scope, Signal, Status};
use serde::{Deserialize, Serialize};

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
    /// How many descriptors after stderr the process inherits.
    pub preserve_fds: u32,
    /// Change the root by MS_MOVE and chroot(2) instead of pivot_root(2).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
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

/// All that a container can leave in the system, known before any of it exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Its id.
    pub id: ContainerId,
    /// Where the start FIFO is.
    pub runtime_dir: PathBuf,
    // The engine adds: cgroups, hooks to run at delete, …
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

/// A checked configuration, ready to be created.
#[derive(Debug)]
pub struct Plan<'a>(CreateOptions<'a>);

impl<'a> Plan<'a> {
    /// Checks everything that can be checked without changing anything.
    pub fn new(options: CreateOptions<'a>) -> Result<Self> {
        Ok(Self(options))
    }

    /// What [`Plan::create`] is going to leave in the system.
    pub fn resources(&self) -> &Resources {
        todo!()
    }

    /// Creates the container up to the point where only [`ComputeSystem::start`] is missing. Its
    /// init process is a child of the caller. On failure nothing is left.
    pub fn create(self) -> Result<Init> {
        todo!()
    }
}

/// A container that was, or was about to be, created.
#[derive(Clone, Debug)]
pub struct Container {
    /// What it may have left in the system.
    pub resources: Resources,
    /// `None` if its creation didn't get that far.
    pub init: Option<Init>,
}

/// A further process for a container.
#[derive(Debug)]
pub struct ExecOptions<'a> {
    /// What to run.
    pub process: &'a Process,
    /// The process's stdio, or `None` to pass on the caller's.
    pub stdio: Option<Stdio>,
    /// A connected unix socket to send the terminal's master to, if the process has a terminal.
    pub console_socket: Option<OwnedFd>,
    /// How many descriptors after stderr the process inherits.
    pub preserve_fds: u32,
}

impl Container {
    /// Runs a further process. It is a child of the caller and runs at once; an error in
    /// executing its program is this call's error.
    pub fn exec(&self, _spec: &Spec, _options: ExecOptions<'_>) -> Result<Init> {
        todo!()
    }
}

impl ComputeSystem for Container {
    fn status(&self) -> Result<Status> {
        todo!()
    }
    fn start(&self) -> Result<()> {
        todo!()
    }
    fn signal(&self, _signal: Signal, _scope: Scope) -> Result<()> {
        todo!()
    }
    fn pause(&self) -> Result<()> {
        todo!()
    }
    fn resume(&self) -> Result<()> {
        todo!()
    }
    fn processes(&self) -> Result<Vec<u32>> {
        todo!()
    }
    fn delete(&self) -> Result<()> {
        todo!()
    }
}
