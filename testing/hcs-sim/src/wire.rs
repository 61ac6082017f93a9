//! What the library and the service say to each other: one JSON document a line, over a loopback
//! connection whose address is in the environment variable [`ADDRESS`].
//!
//! The caller numbers its calls and its handles. Replies come in any order, events in between.
//! When a connection ends, all its handles are closed.

use serde::{Deserialize, Serialize};

use crate::hresult::Hresult;

/// The environment variable with the service's address, `127.0.0.1:PORT`.
pub const ADDRESS: &str = "HCS_SIM";

/// What a caller sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// The call's number.
    pub number: u64,
    /// The calling process, to which pipes are given and which a fault may kill.
    pub caller: u32,
    /// What it wants.
    pub what: What,
}

/// What a caller wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum What {
    /// A function of the service.
    Call(Call),
    /// Something of the stand-in that the real service doesn't have.
    Control(Control),
}

/// What the tests tell the stand-in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Control {
    /// Replaces the faults, in the format of [`crate::faults`].
    Faults(Vec<String>),
    /// Asks for a [`Snapshot`].
    Snapshot,
    /// Asks for all [`CallRecord`]s since the last time.
    Calls,
    /// Makes an endpoint that containers can be connected to; the document is a `HostComputeEndpoint`.
    Endpoint {
        /// Its GUID.
        id: String,
        /// Its document.
        document: serde_json::Value,
    },
}

/// A function of the service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Call {
    /// `HcsCreateComputeSystem`.
    Create {
        /// The number of the handle that the caller gets.
        handle: u64,
        /// The system's id.
        id: String,
        /// Its document.
        document: String,
    },
    /// `HcsOpenComputeSystem`.
    Open {
        /// The number of the handle that the caller gets.
        handle: u64,
        /// The system's id.
        id: String,
    },
    /// A function of a system.
    System {
        /// The system's handle.
        handle: u64,
        /// Which function.
        operation: SystemOperation,
        /// Its document.
        document: Option<String>,
    },
    /// `HcsEnumerateComputeSystems`.
    Enumerate {
        /// Which systems.
        query: Option<String>,
    },
    /// `HcsCreateProcess`.
    CreateProcess {
        /// The system's handle.
        system: u64,
        /// The number of the process's handle that the caller gets.
        handle: u64,
        /// The process's document.
        document: String,
    },
    /// `HcsOpenProcess`.
    OpenProcess {
        /// The system's handle.
        system: u64,
        /// The number of the process's handle that the caller gets.
        handle: u64,
        /// The process's id.
        process: u32,
    },
    /// A function of a process.
    Process {
        /// The process's handle.
        handle: u64,
        /// Which function.
        operation: ProcessOperation,
        /// Its document.
        document: Option<String>,
    },
    /// `HcsCloseComputeSystem` and `HcsCloseProcess`.
    Close {
        /// The handle.
        handle: u64,
    },
    /// `HcsGetServiceProperties`.
    ServiceProperties {
        /// Which properties.
        query: Option<String>,
    },
    /// Who may read a file.
    Access {
        /// Which function.
        operation: AccessOperation,
        /// The virtual machine; every one if absent.
        machine: Option<String>,
        /// The file.
        path: String,
    },
    /// A function of a layer.
    Layer {
        /// Which function.
        operation: LayerOperation,
        /// The layer's folder.
        path: String,
        /// The other path that the function takes.
        other: Option<String>,
        /// The layers below.
        layers: Option<String>,
        /// Options.
        options: Option<String>,
    },
    /// `CreateVirtualDisk`.
    CreateDisk {
        /// The file to make.
        path: String,
        /// The disk's size in bytes.
        size: u64,
    },
    /// `AttachVirtualDisk` and `DetachVirtualDisk`.
    Disk {
        /// The disk's file.
        path: String,
        /// Whether it is attached, or else detached.
        attach: bool,
        /// Whether it stays attached when the caller has gone.
        permanent: bool,
    },
    /// A function of a network namespace or of an endpoint.
    Network {
        /// Which function.
        operation: NetworkOperation,
        /// The GUID.
        id: Option<String>,
        /// The document.
        document: Option<String>,
    },
}

/// A function of a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the service's")]
pub enum SystemOperation {
    Start,
    ShutDown,
    Terminate,
    Pause,
    Resume,
    Modify,
    GetProperties,
}

/// A function of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the service's")]
pub enum ProcessOperation {
    GetInfo,
    GetProperties,
    Modify,
    Signal,
    Terminate,
}

/// A function that says who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the service's")]
pub enum AccessOperation {
    Grant,
    Revoke,
}

/// A function of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the service's")]
pub enum LayerOperation {
    Import,
    Export,
    InitializeWritable,
    AttachFilter,
    DetachFilter,
    FormatWritableVhd,
    GetVhdMountPath,
    SetupBase,
    Destroy,
}

/// A function of a network namespace or of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the service's")]
pub enum NetworkOperation {
    CreateNamespace,
    OpenNamespace,
    QueryNamespace,
    ModifyNamespace,
    DeleteNamespace,
    EnumerateNamespaces,
    OpenEndpoint,
    QueryEndpoint,
    EnumerateEndpoints,
}

impl Call {
    /// The function's name in the service's interface.
    pub fn function(&self) -> &'static str {
        match self {
            Self::Create { .. } => "HcsCreateComputeSystem",
            Self::Open { .. } => "HcsOpenComputeSystem",
            Self::System { operation, .. } => match operation {
                SystemOperation::Start => "HcsStartComputeSystem",
                SystemOperation::ShutDown => "HcsShutDownComputeSystem",
                SystemOperation::Terminate => "HcsTerminateComputeSystem",
                SystemOperation::Pause => "HcsPauseComputeSystem",
                SystemOperation::Resume => "HcsResumeComputeSystem",
                SystemOperation::Modify => "HcsModifyComputeSystem",
                SystemOperation::GetProperties => "HcsGetComputeSystemProperties",
            },
            Self::Enumerate { .. } => "HcsEnumerateComputeSystems",
            Self::CreateProcess { .. } => "HcsCreateProcess",
            Self::OpenProcess { .. } => "HcsOpenProcess",
            Self::Process { operation, .. } => match operation {
                ProcessOperation::GetInfo => "HcsGetProcessInfo",
                ProcessOperation::GetProperties => "HcsGetProcessProperties",
                ProcessOperation::Modify => "HcsModifyProcess",
                ProcessOperation::Signal => "HcsSignalProcess",
                ProcessOperation::Terminate => "HcsTerminateProcess",
            },
            Self::Close { .. } => "HcsClose",
            Self::ServiceProperties { .. } => "HcsGetServiceProperties",
            Self::Access { operation: AccessOperation::Grant, machine: Some(_), .. } => {
                "HcsGrantVmAccess"
            }
            Self::Access { operation: AccessOperation::Grant, .. } => "HcsGrantVmGroupAccess",
            Self::Access { machine: Some(_), .. } => "HcsRevokeVmAccess",
            Self::Access { .. } => "HcsRevokeVmGroupAccess",
            Self::Layer { operation, .. } => match operation {
                LayerOperation::Import => "HcsImportLayer",
                LayerOperation::Export => "HcsExportLayer",
                LayerOperation::InitializeWritable => "HcsInitializeWritableLayer",
                LayerOperation::AttachFilter => "HcsAttachLayerStorageFilter",
                LayerOperation::DetachFilter => "HcsDetachLayerStorageFilter",
                LayerOperation::FormatWritableVhd => "HcsFormatWritableLayerVhd",
                LayerOperation::GetVhdMountPath => "HcsGetLayerVhdMountPath",
                LayerOperation::SetupBase => "HcsSetupBaseOSLayer",
                LayerOperation::Destroy => "HcsDestroyLayer",
            },
            Self::CreateDisk { .. } => "CreateVirtualDisk",
            Self::Disk { attach: true, .. } => "AttachVirtualDisk",
            Self::Disk { .. } => "DetachVirtualDisk",
            Self::Network { operation, .. } => match operation {
                NetworkOperation::CreateNamespace => "HcnCreateNamespace",
                NetworkOperation::OpenNamespace => "HcnOpenNamespace",
                NetworkOperation::QueryNamespace => "HcnQueryNamespaceProperties",
                NetworkOperation::ModifyNamespace => "HcnModifyNamespace",
                NetworkOperation::DeleteNamespace => "HcnDeleteNamespace",
                NetworkOperation::EnumerateNamespaces => "HcnEnumerateNamespaces",
                NetworkOperation::OpenEndpoint => "HcnOpenEndpoint",
                NetworkOperation::QueryEndpoint => "HcnQueryEndpointProperties",
                NetworkOperation::EnumerateEndpoints => "HcnEnumerateEndpoints",
            },
        }
    }
}

/// What the service sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Message {
    /// The answer to a call.
    Reply(Reply),
    /// Something happened to what a handle stands for.
    Event(Event),
}

/// The answer to a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The call's number.
    pub number: u64,
    /// Whether it worked.
    pub result: Hresult,
    /// The result's document; of a failure, a `ResultError`.
    pub document: Option<String>,
    /// The process that was made or asked for.
    pub process: Option<ProcessInfo>,
}

/// A process, and the caller's ends of its pipes: handles in the calling process, 0 if there are
/// none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its id.
    pub process: u32,
    /// Where to write its standard input.
    pub input: u64,
    /// Where to read its standard output.
    pub output: u64,
    /// Where to read its standard error.
    pub error: u64,
}

/// Something happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// The handle of what it happened to.
    pub handle: u64,
    /// What.
    pub kind: EventKind,
    /// More about it.
    pub document: String,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// `HcsEventSystemExited`.
    SystemExited,
    /// `HcsEventProcessExited`.
    ProcessExited,
    /// `HcsEventServiceDisconnect`; the library makes it itself.
    ServiceDisconnect,
}

/// One call, as the stand-in remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// The function.
    pub function: String,
    /// What it was about: an id, a path, a document.
    pub about: String,
    /// What it returned; absent if it hangs.
    pub result: Option<Hresult>,
    /// Why it failed.
    pub message: String,
}

/// What there is, so that a test can show that nothing is left.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The systems that have not ended.
    pub systems: Vec<SystemSnapshot>,
    /// The layers whose filter is attached.
    pub layers: Vec<String>,
    /// The disks that are attached.
    pub disks: Vec<String>,
    /// The namespaces' documents.
    pub namespaces: Vec<serde_json::Value>,
}

/// A system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemSnapshot {
    /// Its id.
    pub id: String,
    /// What it is doing.
    pub state: String,
    /// Who it belongs to.
    pub owner: String,
    /// The virtual machine it is in.
    pub host: Option<String>,
    /// The processes that run in it, by their ids.
    pub processes: Vec<u32>,
    /// What was added to it while it ran, by its place.
    pub resources: std::collections::BTreeMap<String, serde_json::Value>,
}
