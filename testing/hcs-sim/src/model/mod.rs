//! What the service knows: systems, handles, layers, networks. It decides what a call does; it
//! starts no process and sends nothing.

mod disks;
mod handles;
mod network;
mod process;
mod resources;
mod storage;
mod system;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use crate::hresult::{self, Hresult};
use crate::schema::Violation;
use crate::wire::{CallRecord, Snapshot, SystemSnapshot};

pub use disks::{GuestDisk, create_disk, is_physical};
pub use handles::{Connection, Handles, Target};
pub use network::Networks;
#[cfg(windows)]
pub use process::program_of;
pub use process::{Launch, Program, Signal, modify};
pub use storage::Storage;
pub use system::{ExitType, Stopped, System, Systems};

/// All that the service knows.
#[derive(Debug, Default)]
pub struct Model {
    /// The compute systems.
    pub systems: Systems,
    /// What callers' handles stand for.
    pub handles: Handles,
    /// Layers, disks, and who may read files.
    pub storage: Storage,
    /// Network namespaces and endpoints.
    pub networks: Networks,
    /// The calls so far.
    pub calls: Vec<CallRecord>,
}

/// Why a call fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code.
    pub result: Hresult,
    /// In words.
    pub message: String,
}

impl Failure {
    /// A failure with this code.
    pub fn new(result: Hresult, message: impl Into<String>) -> Self {
        Self { result, message: message.into() }
    }

    /// The document that a caller gets, a `ResultError`.
    pub fn document(&self) -> String {
        let code = i32::from_ne_bytes(self.result.0.to_ne_bytes());
        let event = json!({"Message": self.message, "Provider": "hcs-sim", "EventId": 1});
        json!({"Error": code, "ErrorMessage": self.message, "ErrorEvents": [event]}).to_string()
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self::new(hresult::INVALID_JSON, violation.to_string())
    }
}

impl Model {
    /// Whether what a new system's document names is there.
    ///
    /// # Errors
    /// If a layer, a namespace or a boot file is missing.
    pub fn can_make(&self, number: u64) -> Result<(), Failure> {
        let document = &self.systems.get(number)?.document;
        let hosted = &document["HostedSystem"]["Container"];
        let container = if hosted.is_null() { &document["Container"] } else { hosted };
        if let Some(namespace) = text(&container["Networking"], "Namespace") {
            self.networks.expect_namespace(namespace)?;
        }
        if let Some(path) = text(&document["Container"]["Storage"], "Path") {
            self.storage.expect_attached(path)?;
        }
        let kernel = &document["VirtualMachine"]["Chipset"]["LinuxKernelDirect"];
        for field in ["KernelFilePath", "InitRdPath"] {
            if let Some(path) = text(kernel, field) {
                self.storage.expect_file(path)?;
            }
        }
        Ok(())
    }

    /// What there is now.
    pub fn snapshot(&self) -> Snapshot {
        let systems = self.systems.living().map(|system| SystemSnapshot {
            id: system.id.clone(),
            state: system.state.name().to_owned(),
            owner: system.document["Owner"].as_str().unwrap_or_default().to_owned(),
            host: system.document["HostingSystemId"].as_str().map(str::to_owned),
            processes: system.running().collect(),
            resources: system.resources.clone(),
        });
        Snapshot {
            systems: systems.collect(),
            layers: self.storage.layers(),
            disks: self.storage.disks(),
            namespaces: self.networks.namespaces(),
        }
    }
}

/// A field of a document that holds a text.
fn text<'a>(document: &'a Value, field: &str) -> Option<&'a str> {
    document.get(field).and_then(Value::as_str)
}
