//! A container that the store knows, reached through its compute service.

use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use runhcs_compute::{ComputeSystem, ContainerId, Status};
use runhcs_state::{Entry, ProcessHandle, Record, Store};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::logging;
use crate::sys::Service;

/// Names of values in an entry.
pub mod value {
    /// What the compute service may leave in the system.
    pub const RESOURCES: &str = "resources";
    /// The container's process ([`super::Main`]).
    pub const MAIN: &str = "main";
    /// The configuration.
    pub const CONFIG: &str = "config";
}

/// A container's main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Main {
    /// Its init, or the container shim that stands for it.
    pub process: ProcessHandle,
    /// Its init's pid in the VM.
    pub guest_pid: Option<u32>,
}

/// A container of the store.
#[derive(Debug)]
pub struct Existing {
    /// Who it is.
    pub record: Record,
    /// Its main process, unless its creation has not got that far.
    pub main: Option<Main>,
    /// What runs it.
    pub service: Service,
}

impl Existing {
    /// Opens a container's entry.
    pub fn open(store: &Store, entry: &Entry) -> Result<Self> {
        let record = entry.record()?;
        let main: Option<Main> = entry.get(value::MAIN)?;
        let service = Service::open(store, entry, &record, main)?;
        Ok(Self { record, main, service })
    }

    /// Finds a container by its id.
    pub fn find(store: &Store, id: &ContainerId) -> Result<(Entry, Self)> {
        let entry = store.entry(id)?;
        let existing = Self::open(store, &entry)?;
        if let Some(place) = &existing.record.vm {
            logging::about_vm(&place.host_id);
        }
        Ok((entry, existing))
    }

    /// Its compute system.
    pub fn system(&self) -> Option<&dyn ComputeSystem> {
        self.service.system()
    }

    /// Its compute system, for a verb that needs one.
    pub fn require(&self) -> Result<&dyn ComputeSystem> {
        self.system().with_context(|| {
            let id = &self.record.id;
            match self.main {
                Some(_) => format!("container {id} has stopped{}", self.because(Status::Stopped)),
                None => self.unfinished(),
            }
        })
    }

    /// What to say of one whose creation has not come to its end.
    pub fn unfinished(&self) -> String {
        format!(
            "container {id} is still being created, or its creation was cut off; \
             `delete --force {id}` clears it",
            id = self.record.id
        )
    }

    /// What it is doing. A VM that has ended has taken its containers with it.
    pub fn status(&self) -> Result<Status> {
        let Some(main) = &self.main else { return Ok(Status::Creating) };
        self.service.status(main)
    }

    /// The pid that stands for it on this host; 0 once it has stopped.
    pub fn pid(&self, status: Status) -> u32 {
        match (status, &self.main) {
            (Status::Stopped, _) | (_, None) => 0,
            (_, Some(main)) => main.process.pid,
        }
    }

    /// Fails unless its status is one of those allowed. The words are runc's, which callers match.
    pub fn expect(&self, operation: &str, allowed: &[Status]) -> Result<Status> {
        let status = self.status()?;
        if allowed.contains(&status) {
            return Ok(status);
        }
        bail!(
            "cannot {operation} container {} that is {status}{}",
            self.record.id,
            self.because(status)
        )
    }

    /// An error with what there is to add, if it comes from the container's having stopped.
    pub fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        match error.downcast_ref() {
            Some(runhcs_compute::Error::InvalidStatus { status: Status::Stopped, .. }) => {
                anyhow::anyhow!("{error}{}", self.because(Status::Stopped))
            }
            _ => error,
        }
    }

    /// What to say in an error besides that the container has stopped: how its VM has ended, if
    /// that has.
    pub fn because(&self, status: Status) -> String {
        let reason = match status {
            Status::Stopped => self.service.obituary(&self.record),
            _ => None,
        };
        reason.map_or_else(String::new, |reason| format!("; its virtual machine is gone: {reason}"))
    }
}

/// The configuration the container was created from.
pub fn config(entry: &Entry) -> Result<Spec> {
    let tree: Option<Value> = entry.get(value::CONFIG)?;
    let tree = tree
        .with_context(|| format!("the state of container {} has no configuration", entry.id()))?;
    runhcs_spec::configuration_from(&tree)
        .with_context(|| format!("the configuration in the state of container {}", entry.id()))
}
