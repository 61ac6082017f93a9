//! What a compute system tells about itself.

use serde::{Deserialize, Serialize};

use super::documents;

documents! {
    /// What is passed to `HcsGetComputeSystemProperties`; basic properties only, if empty.
    pub struct PropertyQuery {
        /// What is asked for.
        pub property_types: Vec<PropertyType>,
    }

    /// What it answers. Also one element of what `HcsEnumerateComputeSystems` answers.
    pub struct Properties {
        /// The system's id.
        pub id: String,
        /// `Container` or `VirtualMachine`.
        pub system_type: String,
        /// `Windows` or `Linux`.
        pub runtime_os_type: String,
        /// Who it belongs to.
        pub owner: String,
        /// A virtual machine's GUID for Hyper-V sockets.
        pub runtime_id: String,
        /// What it is doing; absent before it has been started.
        pub state: Option<SystemState>,
        /// Whether it has stopped.
        pub stopped: bool,
        /// How it stopped.
        pub exit_type: Option<ExitType>,
        /// Its processes, if they were asked for.
        pub process_list: Vec<ProcessDetails>,
        /// The virtual machine it is in.
        pub hosting_system_id: String,
        /// The guest's compute service, if it was asked for.
        pub guest_connection_info: Option<GuestConnectionInfo>,
    }

    /// A process of a compute system.
    pub struct ProcessDetails {
        /// Its id in the guest.
        pub process_id: u32,
        /// Its program's name.
        pub image_name: String,
    }

    /// What the guest's compute service can do.
    pub struct GuestConnectionInfo {
        /// The protocol spoken with it.
        pub protocol_version: u32,
        /// What it says it can do.
        pub guest_defined_capabilities: GuestCapabilities,
    }

    /// What a guest's compute service says it can do.
    pub struct GuestCapabilities {
        /// Network namespaces can be added.
        pub namespace_add_request_supported: bool,
        /// Processes can be sent signals.
        pub signal_process_supported: bool,
    }
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PropertyType {
    /// [`Properties::process_list`].
    ProcessList,
    /// [`Properties::guest_connection_info`].
    GuestConnection,
}

/// What a compute system is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemState {
    /// It has not been started.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It has stopped.
    Stopped,
    /// It is saved as a template.
    SavedAsTemplate,
    /// Something that this program doesn't know.
    #[serde(other)]
    Unknown,
}

/// How a compute system stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitType {
    /// It was never started.
    None,
    /// It shut down.
    GracefulExit,
    /// It was shut down by force.
    ForcedExit,
    /// It crashed or its worker process did.
    UnexpectedExit,
    /// Something that this program doesn't know.
    #[serde(other)]
    Unknown,
}
