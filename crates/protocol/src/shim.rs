//! Command ↔ VM shim: one request and its answer on each connection, except that a connection
//! that has attached to a process stays open until the process has ended.
//!
//! Descriptors travel with the first byte of the message that names them (`SCM_RIGHTS`, unix(7)),
//! in the order in which the message lists them.

use std::fmt;
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use runhcs_compute::{ContainerId, ExitStatus};
use serde::{Deserialize, Serialize};

use crate::guest::{self, DiskPurpose, Failure, ProcessKey, TerminalSize};

/// What the command asks of the VM shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Answered by `Info`.
    Info,
    /// Shares the container's file trees with the VM and creates it there. Attached descriptors:
    /// the root file system, then each of `mounts`; all are detached mounts (open_tree(2)) made
    /// in the caller's mount namespace. Then each of `disks`, open for what is to be done with it.
    /// Answered by `Guest(Process)`.
    CreateContainer(Box<CreateContainer>),
    /// Deletes the container in the VM and stops sharing its file trees. Answered by `Guest(Done)`,
    /// also when there is no such container.
    DeleteContainer(ContainerId),
    /// Hands out the process's stdio. Answered by `Attached`, with descriptors attached; then the
    /// connection carries [`AttachedRequest`]s one way and at last one [`AttachedEvent`] the other.
    /// If the connection ends before the process has, the process is killed.
    Attach(ProcessKey),
    /// Which of the container's processes a process of the host stands for. Answered by `StandIns`.
    StandIns(ContainerId),
    /// Passed on to the agent as it is. `CreateContainer`, `DeleteContainer` and `WaitProcess`
    /// are refused here. For `UpdateContainer` the VM first grows, if it must, so that the
    /// container can use up its limits; if it may not grow so far, nothing changes. Answered by
    /// `Guest`.
    Guest(guest::Request),
    /// Has the VM follow what was changed in the pod's network namespace. Answered by `Guest(Done)`.
    SyncNetwork,
    /// Stops the VM and ends the shim. Answered by `Guest(Done)` once nothing is left of the VM
    /// but the shim itself, which holds its lock file until it is gone.
    Shutdown,
}

/// A container to be created in the VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateContainer {
    /// Its id.
    pub id: ContainerId,
    /// Its configuration. `root.path` and the sources of `mounts` are replaced by the shim with
    /// the paths under which the guest sees the attached trees.
    pub spec: Spec,
    /// Where other file systems are mounted in the root, relative to it, outer ones first.
    pub root_inner: Vec<PathBuf>,
    /// For each attached tree after the root: what it is for.
    pub mounts: Vec<BindMount>,
    /// For each attached disk: what it is for.
    pub disks: Vec<Disk>,
}

/// A block device, or a file with the content of one, that is attached to the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// What the container has it for.
    pub purpose: DiskPurpose,
    /// What the descriptor is open for.
    pub access: DiskAccess,
}

/// What a disk's descriptor is open for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiskAccess {
    /// Reading.
    ReadOnly,
    /// Reading and writing, and nobody else on the host uses it while the descriptor is open.
    Exclusive,
    /// Reading and writing, but somebody uses it. Only this VM itself may.
    InUse,
}

/// A bind mount whose source is attached to the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindMount {
    /// Which of `spec.mounts` it is.
    pub index: usize,
    /// Whether it can be one with the same source of another container: nothing else is mounted
    /// below it, and its files' owners aren't mapped.
    pub shareable: bool,
    /// Where other file systems are mounted in it, relative to it, outer ones first.
    pub inner: Vec<PathBuf>,
}

/// What an attached client may send.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AttachedRequest {
    /// Passes a signal on to the process. Not answered.
    Signal(runhcs_compute::Signal),
    /// Passes a terminal size on. Not answered.
    Resize(TerminalSize),
}

/// What an attached client hears, once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AttachedEvent {
    /// The process has ended.
    Exited(ExitStatus),
    /// The VM has ended under it.
    VmEnded(VmEnd),
}

/// How a VM has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VmEnd {
    /// Somebody wanted it to.
    ShutDown,
    /// Nobody wanted it to; the text says what died and what its console said last.
    Lost(String),
}

impl fmt::Display for VmEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShutDown => f.write_str("the virtual machine was shut down"),
            Self::Lost(reason) => f.write_str(reason),
        }
    }
}

/// The VM shim's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// The agent's answer, or the shim's own in the same terms.
    Guest(guest::Reply),
    /// The process's stdio is attached: stdin, stdout, stderr; or the one terminal. Each is a
    /// connection that speaks [`crate::stream`].
    Attached {
        /// Whether the process has a terminal.
        terminal: bool,
    },
    /// Processes that somebody has attached to.
    StandIns(Vec<StandIn>),
    /// About the VM.
    Info(Info),
    /// The VM is gone.
    VmEnded(VmEnd),
    /// The shim itself couldn't do as asked.
    Failed(Failure),
}

/// A process of the host that stands for one in the VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandIn {
    /// Its own pid, on the host.
    pub pid: u32,
    /// What it stands for.
    pub process: ProcessKey,
    /// The pid of that in the guest's first pid namespace.
    pub guest_pid: u32,
}

/// About a running VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Info {
    /// The shim's pid on the host.
    pub pid: u32,
    /// What runs the guest's instructions: `kvm` or `tcg`.
    pub accelerator: String,
    /// The guest kernel's release.
    pub kernel: String,
    /// Where the pod's network namespace is found on the host, if the VM has its network.
    pub network: Option<PathBuf>,
    /// Where the guest's serial console is logged on the host.
    pub console_log: PathBuf,
}
