//! A utility VM as the command sees it: launching the VM shim, asking things of it, and standing
//! in on the host for a process that runs in the VM. Synchronous and small; the VM itself is the
//! business of `runhcs-vm-shim`.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use runhcs_compute::{ComputeSystem, ContainerId, ExitStatus, Result, Scope, Signal, Status};
use runhcs_protocol::guest::{ProcessKey, TerminalSize};
use runhcs_protocol::shim::Info;
use runhcs_spec::VmOptions;
use serde::{Deserialize, Serialize};

/// What a VM shim is launched with: the JSON document on its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The container that owns the VM.
    pub host_id: ContainerId,
    /// A private directory that exists; the shim keeps sockets, its lock and the console log in
    /// it and leaves the directory itself when it ends.
    pub dir: PathBuf,
    /// The VM's options.
    pub options: VmOptions,
    /// A unix socket to which the serial console is also written.
    pub console: Option<PathBuf>,
    /// `tracing` filter for the shim's log.
    pub log_level: String,
    /// Log lines as JSON.
    pub log_json: bool,
}

/// A connection point to a VM shim.
#[derive(Clone, Debug)]
pub struct Vm {
    _dir: PathBuf,
}

impl Vm {
    /// Starts the VM shim `program` as a daemon, its log going to `log`, and waits until its VM
    /// serves requests. If that fails nothing is left, and the error holds the shim's own words.
    pub fn launch(_program: &Path, _launch: &Launch, _log: OwnedFd) -> Result<Self> {
        todo!()
    }

    /// The VM whose shim was launched with this directory. Does not connect yet.
    pub fn at(dir: &Path) -> Self {
        Self { _dir: dir.to_owned() }
    }

    /// The directory its shim was launched with.
    pub fn dir(&self) -> &Path {
        &self._dir
    }

    /// About the VM.
    pub fn info(&self) -> Result<Info> {
        todo!()
    }

    /// Whether the shim is alive: it holds its lock file as long as it is.
    pub fn is_alive(&self) -> Result<bool> {
        todo!()
    }

    /// Creates a container in the VM: opens its root file system and the sources of its bind
    /// mounts as detached mounts and hands them to the shim. Returns the init process's pid in
    /// the guest's first pid namespace.
    pub fn create_container(&self, _id: &ContainerId, _spec: &Spec) -> Result<u32> {
        todo!()
    }

    /// Runs a further process in a container; attach to it to get at its stdio and exit status.
    pub fn create_process(&self, _id: &ContainerId, _process: &Process) -> Result<ProcessKey> {
        todo!()
    }

    /// Takes over a process's stdio.
    pub fn attach(&self, _process: &ProcessKey) -> Result<Attachment> {
        todo!()
    }

    /// Sets the size of a process's terminal.
    pub fn resize(&self, _process: &ProcessKey, _size: TerminalSize) -> Result<()> {
        todo!()
    }

    /// Stops the VM and waits until its shim is gone, killing it and its VM if it doesn't answer.
    /// Succeeds if there is none.
    pub fn shutdown(&self) -> Result<()> {
        todo!()
    }
}

/// A process in the VM whose stdio this process holds.
#[derive(Debug)]
pub struct Attachment {
    _private: (),
}

impl Attachment {
    /// Whether the process has a terminal.
    pub fn terminal(&self) -> bool {
        todo!()
    }

    /// Stands in for the process until it has ended: copies stdio both ways with back-pressure
    /// and half-close, passes on every signal this process receives that can be passed on, and
    /// the size of `terminal` whenever it changes. Returns when the process has ended and all
    /// its output is written.
    pub fn run(self, _stdio: LocalStdio<'_>) -> Result<ExitStatus> {
        todo!()
    }
}

/// The host's end of a process's stdio.
#[derive(Clone, Copy, Debug)]
pub enum LocalStdio<'a> {
    /// Three descriptors.
    Pipes {
        /// Read from.
        stdin: BorrowedFd<'a>,
        /// Written to.
        stdout: BorrowedFd<'a>,
        /// Written to.
        stderr: BorrowedFd<'a>,
    },
    /// A terminal in raw mode.
    Terminal(BorrowedFd<'a>),
}

/// A container in a VM. Its `status`, `start`, `signal`, … are requests to the guest's agent.
#[derive(Clone, Debug)]
pub struct VmContainer {
    /// The VM it is in.
    pub vm: Vm,
    /// Its id.
    pub id: ContainerId,
}

impl ComputeSystem for VmContainer {
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
