//! A container that the store knows, reached through its compute service.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxResources, Spec};
use runhcs_compute::{ComputeSystem, ContainerId, OomNotice, Stats, Status};
use runhcs_container::{Container, Init, Resources};
use runhcs_state::{Entry, ProcessHandle, Record, Store};
use runhcs_uvm::{Vm, VmContainer};
use serde::{Deserialize, Serialize};

use crate::logging;

/// Names of values in an entry.
pub mod value {
    /// What the engine may leave in the system ([`runhcs_container::Resources`]).
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
    service: Service,
}

#[derive(Debug)]
enum Service {
    Process(Box<Container>),
    Vm(VmContainer),
    /// Its creation has not got as far as its compute service.
    None,
}

/// The VM whose host has this entry.
pub fn vm_of(host: &Entry) -> Vm {
    Vm::at(&host.dir().join("vm"))
}

impl Existing {
    /// Opens a container's entry.
    pub fn open(store: &Store, entry: &Entry) -> Result<Self> {
        let record = entry.record()?;
        let main: Option<Main> = entry.get(value::MAIN)?;
        let service = match &record.vm {
            Some(place) => match host_entry(store, &record.id, entry, &place.host_id) {
                Some(dir) => {
                    Service::Vm(VmContainer { vm: Vm::at(&dir.join("vm")), id: record.id.clone() })
                }
                None => Service::None,
            },
            None => match entry.get::<Resources>(value::RESOURCES)? {
                Some(resources) => {
                    let init = main.map(|main| Init {
                        pid: main.process.pid,
                        start_time: main.process.start_time,
                    });
                    Service::Process(Box::new(Container { resources, init }))
                }
                None => Service::None,
            },
        };
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
        match &self.service {
            Service::Process(container) => Some(container.as_ref()),
            Service::Vm(container) => Some(container),
            Service::None => None,
        }
    }

    /// Its compute system, for a verb that needs one.
    pub fn require(&self) -> Result<&dyn ComputeSystem> {
        self.system().with_context(|| format!("container {} is still being created, or its creation was cut off; `delete --force {0}` clears it", self.record.id))
    }

    /// What it is doing. A VM that has ended has taken its containers with it.
    pub fn status(&self) -> Result<Status> {
        let Some(main) = &self.main else { return Ok(Status::Creating) };
        match &self.service {
            Service::None => Ok(Status::Stopped),
            Service::Process(container) => Ok(container.status()?),
            Service::Vm(container) => {
                if !main.process.is_alive()? || !container.vm.is_alive()? {
                    return Ok(Status::Stopped);
                }
                match container.status() {
                    Err(runhcs_compute::Error::NotFound(_)) => Ok(Status::Stopped),
                    other => Ok(other?),
                }
            }
        }
    }

    /// The pid that stands for it on this host; 0 once it has stopped.
    pub fn pid(&self, status: Status) -> u32 {
        match (status, &self.main) {
            (Status::Stopped, _) | (_, None) => 0,
            (_, Some(main)) => main.process.pid,
        }
    }

    /// Sets limits, all that the resources name.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        match &self.service {
            Service::Process(container) => Ok(container.update(resources)?),
            Service::Vm(container) => Ok(container.update(resources)?),
            Service::None => self.require().map(|_| ()),
        }
    }

    /// What it uses.
    pub fn stats(&self) -> Result<Stats> {
        match &self.service {
            Service::Process(container) => Ok(container.stats()?),
            Service::Vm(container) => Ok(container.stats()?),
            Service::None => self.require().map(|_| Stats::default()),
        }
    }

    /// Begins to watch for exhausted memory.
    pub fn watch_oom(&self) -> Result<OomWatch<'_>> {
        match &self.service {
            Service::Process(container) => Ok(OomWatch::Process(Box::new(container.watch_oom()?))),
            Service::Vm(container) => Ok(OomWatch::Vm(container)),
            Service::None => self.require().and_then(|_| bail!("{} has ended", self.record.id)),
        }
    }

    /// It as a process-isolated container.
    pub fn container(&self) -> Option<&Container> {
        match &self.service {
            Service::Process(container) => Some(container),
            _ => None,
        }
    }

    /// It as a container in a VM.
    pub fn vm_container(&self) -> Option<&VmContainer> {
        match &self.service {
            Service::Vm(container) => Some(container),
            _ => None,
        }
    }

    /// Fails unless its status is one of those allowed. The words are runc's, which callers match.
    pub fn expect(&self, operation: &str, allowed: &[Status]) -> Result<Status> {
        let status = self.status()?;
        if allowed.contains(&status) {
            return Ok(status);
        }
        bail!("cannot {operation} container {} that is {status}", self.record.id)
    }
}

/// Notices that a container's memory is exhausted.
#[derive(Debug)]
pub enum OomWatch<'a> {
    /// On this host.
    Process(Box<runhcs_container::OomWatch>),
    /// In the VM.
    Vm(&'a VmContainer),
}

impl OomWatch<'_> {
    /// Waits until the count of kills is another than `known`, the container has ended, or
    /// `limit` has passed; not at all if nothing is known yet.
    pub fn wait(&mut self, known: Option<u64>, limit: Duration) -> Result<OomNotice> {
        Ok(match self {
            Self::Process(watch) => watch.wait(known, limit)?,
            Self::Vm(container) => container.wait_oom(known, limit)?,
        })
    }
}

/// The directory of the VM host's entry; `None` if it is gone.
fn host_entry(
    store: &Store,
    id: &ContainerId,
    entry: &Entry,
    host: &ContainerId,
) -> Option<std::path::PathBuf> {
    if id == host {
        return Some(entry.dir().to_owned());
    }
    store.entry(host).ok().map(|host| host.dir().to_owned())
}

/// The configuration the container was created from.
pub fn config(entry: &Entry) -> Result<Spec> {
    let config = entry.get(value::CONFIG)?;
    config.with_context(|| format!("the state of container {} has no configuration", entry.id()))
}
