//! VM shim ↔ guest agent: requests by id over one connection, answered in any order.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use oci_spec::runtime::{LinuxResources, Process, Spec};
use runhcs_compute::{ContainerId, ExitStatus, OomNotice, Scope, Signal, Stats, Status};
use serde::{Deserialize, Serialize};

use crate::agent_log::LogLine;
use crate::network::Network;
use crate::processes::{DescribeProcesses, ProcessTable};

/// The first message on the control connection, sent by the agent when it is ready to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`crate::VERSION`] of the agent.
    pub version: u32,
    /// The guest kernel's release, as uname(2) gives it.
    pub kernel: String,
}

/// A request with the number its reply will carry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// Chosen by the requester, unique among its open requests.
    pub id: u64,
    /// The request or the reply.
    pub body: T,
}

/// What the agent says after its greeting.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FromAgent {
    /// The answer to the request of the same number.
    Reply(Envelope<Reply>),
    /// A line for the VM's log.
    Log(LogLine),
}

/// One process in the VM.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessKey {
    /// The container it runs in.
    pub container: ContainerId,
    /// `None` for the container's init process, else the number [`Reply::Process`] gave.
    pub exec: Option<u64>,
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exec {
            None => write!(f, "container {}", self.container),
            Some(exec) => write!(f, "exec {exec} in container {}", self.container),
        }
    }
}

/// What the host asks of the agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Makes a container, up to the point where only `Start` is missing. Answered by `Process`.
    CreateContainer(Box<CreateContainer>),
    /// Releases the container's init process. Answered by `Done`.
    StartContainer(ContainerId),
    /// Runs a further process in a container. It runs at once. Answered by `Process`.
    CreateProcess(Box<CreateProcess>),
    /// Answered by `Exited` when the process has ended, however long that takes.
    WaitProcess(ProcessKey),
    /// Sends a signal. Answered by `Done`.
    SignalProcess {
        /// The process meant.
        process: ProcessKey,
        /// The signal.
        signal: Signal,
        /// Whether every process of the container gets it.
        scope: Scope,
    },
    /// Sets the size of the process's terminal. Answered by `Done`.
    ResizeTerminal {
        /// The process whose terminal is meant.
        process: ProcessKey,
        /// Its new size.
        size: TerminalSize,
    },
    /// Answered by `Status`.
    ContainerStatus(ContainerId),
    /// Answered by `Processes`, with pids of the guest's first pid namespace.
    ListProcesses(ContainerId),
    /// Answered by `ProcessTable`.
    DescribeProcesses(DescribeProcesses),
    /// Freezes a container. Answered by `Done`.
    PauseContainer(ContainerId),
    /// Thaws a container. Answered by `Done`.
    ResumeContainer(ContainerId),
    /// Sets limits, all that the resources name. Answered by `Done`.
    UpdateContainer(Box<UpdateContainer>),
    /// Answered by `Stats`.
    ContainerStats(ContainerId),
    /// Answered by `Oom` when the count of out-of-memory kills is another than the one known, when
    /// the container has ended, or when the time is over.
    WaitOom(WaitOom),
    /// Kills what runs and frees everything of the container; `Done` also when there is none.
    DeleteContainer(ContainerId),
    /// Forgets an exec'd process that has ended. `Done` also when there is none.
    DeleteProcess(ProcessKey),
    /// Makes the guest's first network namespace hold the pod's network, also when it held another
    /// before. Answered by `Done`.
    ConfigureNetwork(Box<Network>),
    /// Takes what the VM was given while it runs into use, and waits until it has at least this.
    /// Answered by `Done`.
    UseHardware(Hardware),
    /// Answered by `Done` at once, whatever else is under way.
    Ping,
    /// Writes back what the guest has cached and answers `Done`; the VM may then be stopped.
    Sync,
}

impl Request {
    /// Its name in log lines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateContainer(_) => "create container",
            Self::StartContainer(_) => "start container",
            Self::CreateProcess(_) => "create process",
            Self::WaitProcess(_) => "wait for process",
            Self::SignalProcess { .. } => "signal process",
            Self::ResizeTerminal { .. } => "resize terminal",
            Self::ContainerStatus(_) => "tell container's status",
            Self::ListProcesses(_) => "list processes",
            Self::DescribeProcesses(_) => "describe processes",
            Self::PauseContainer(_) => "pause container",
            Self::ResumeContainer(_) => "resume container",
            Self::UpdateContainer(_) => "update container",
            Self::ContainerStats(_) => "measure container",
            Self::WaitOom(_) => "wait for exhausted memory",
            Self::DeleteContainer(_) => "delete container",
            Self::DeleteProcess(_) => "forget process",
            Self::ConfigureNetwork(_) => "configure network",
            Self::UseHardware(_) => "use hardware",
            Self::Ping => "ping",
            Self::Sync => "sync",
        }
    }

    /// The container it is about.
    pub fn container(&self) -> Option<&ContainerId> {
        Some(match self {
            Self::CreateContainer(create) => &create.id,
            Self::CreateProcess(create) => &create.container,
            Self::UpdateContainer(update) => &update.id,
            Self::WaitOom(wait) => &wait.id,
            Self::DescribeProcesses(describe) => &describe.container,
            Self::WaitProcess(process)
            | Self::SignalProcess { process, .. }
            | Self::ResizeTerminal { process, .. }
            | Self::DeleteProcess(process) => &process.container,
            Self::StartContainer(id)
            | Self::ContainerStatus(id)
            | Self::ContainerStats(id)
            | Self::ListProcesses(id)
            | Self::PauseContainer(id)
            | Self::ResumeContainer(id)
            | Self::DeleteContainer(id) => id,
            Self::ConfigureNetwork(_) | Self::UseHardware(_) | Self::Ping | Self::Sync => {
                return None;
            }
        })
    }
}

/// How large a VM is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Its memory, in MiB.
    pub memory_mib: u64,
    /// Its virtual CPUs.
    pub vcpus: u32,
}

/// Makes a container from paths that are valid in the guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateContainer {
    /// Its id.
    pub id: ContainerId,
    /// Its configuration, with every path already translated to the guest.
    pub spec: Spec,
    /// Disks of the VM that are there for it. They may be there for others too.
    pub disks: Vec<Disk>,
    /// Where other file systems are mounted in its shared trees, outer ones first. Each is to be
    /// a mount of its own in the guest, before the container's mounts get their options.
    pub inner_mounts: Vec<PathBuf>,
}

/// A disk of the VM and what a container has it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its number on the VM's disk controller: the SCSI target.
    pub target: u8,
    /// What it is for.
    pub purpose: DiskPurpose,
}

/// A device's number, which each kernel gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    /// Of the driver.
    pub major: u32,
    /// Of the device.
    pub minor: u32,
}

impl fmt::Display for DeviceNumber {
    /// As sysfs(5) has it in names and files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for DeviceNumber {
    type Err = InvalidDeviceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once(':').and_then(|(major, minor)| {
            Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
        });
        parts.ok_or_else(|| InvalidDeviceNumber(text.to_owned()))
    }
}

/// A text that is no device's number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no device's number, such as 8:16")]
pub struct InvalidDeviceNumber(String);

/// What a container has a disk for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiskPurpose {
    /// It is `spec.linux.devices[index]`. The configuration has the host's numbers of the device,
    /// there and where limits name it; the guest has its own.
    Device(usize),
    /// It holds an ext4 file system to which all goes that is written to the root file system.
    Scratch,
}

/// A further process in a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateProcess {
    /// The container to run it in.
    pub container: ContainerId,
    /// What to run.
    pub process: Process,
}

/// New limits for a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateContainer {
    /// Its id.
    pub id: ContainerId,
    /// The limits.
    pub resources: LinuxResources,
}

/// A wait for exhausted memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitOom {
    /// The container's id.
    pub id: ContainerId,
    /// The count that the host knows; `None` to be told it at once.
    pub known: Option<u64>,
    /// How long to wait, in milliseconds.
    pub limit: u64,
}

/// A terminal's size, in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The agent's answer to a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// It is done.
    Done,
    /// The process exists.
    Process {
        /// `None` for a container's init process.
        exec: Option<u64>,
        /// Its pid in the guest's first pid namespace.
        pid: u32,
    },
    /// The process has ended.
    Exited(ExitStatus),
    /// The container's status.
    Status(Status),
    /// Processes of the container.
    Processes(Vec<u32>),
    /// What is known of processes of the container.
    ProcessTable(Box<ProcessTable>),
    /// What the container uses.
    Stats(Box<Stats>),
    /// What the wait came to.
    Oom(OomNotice),
    /// It failed.
    Failed(Failure),
}

/// Why the agent couldn't do as asked: a [`runhcs_compute::Error`] that can travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum Failure {
    /// There is no such container or process in the VM.
    #[error("it does not exist in the virtual machine")]
    NotFound,
    /// The container's status doesn't allow it.
    #[error("it is {0}")]
    InvalidStatus(Status),
    /// The kernel or the agent lacks what it takes.
    #[error("{0}")]
    Unsupported(String),
    /// Anything else: the messages of the error and its causes, outermost first.
    #[error("{}", .0.join(": "))]
    Other(Vec<String>),
}

impl Failure {
    /// Flattens an error and its causes into text.
    pub fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut messages = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause {
            messages.push(error.to_string());
            cause = error.source();
        }
        Self::Other(messages)
    }
}
