//! What runs a container on Linux: our own engine, on this host or in a guest.

use std::time::Duration;

use anyhow::{Result, bail};
use oci_spec::runtime::LinuxResources;
use runhcs_compute::{ComputeSystem, OomNotice, Stats, Status};
use runhcs_container::{Container, Resources};
use runhcs_protocol::shim::VmEnd;
use runhcs_state::{Entry, Record, Store, VmPlace};
use runhcs_uvm::{Vm, VmContainer};

use crate::existing::{Existing, Main, value};
use crate::sys::process;

/// What runs a container.
#[derive(Debug)]
pub enum Service {
    /// Our own engine, on this host.
    Process(Box<Container>),
    /// The engine of a guest.
    Vm(VmContainer),
    /// Its creation has not got as far as its compute service.
    None,
}

/// The VM whose host has this entry.
pub fn vm_of(host: &Entry) -> Vm {
    Vm::at(&host.dir().join("vm"))
}

impl Service {
    /// Finds what runs the container of an entry.
    pub fn open(store: &Store, entry: &Entry, record: &Record, main: Option<Main>) -> Result<Self> {
        Ok(match &record.vm {
            Some(place) => match host_directory(store, entry, record, place) {
                Some(dir) => {
                    Self::Vm(VmContainer { vm: Vm::at(&dir.join("vm")), id: record.id.clone() })
                }
                None => Self::None,
            },
            None => match entry.get::<Resources>(value::RESOURCES)? {
                Some(resources) => {
                    let init = main.map(|main| process::init(main.process));
                    Self::Process(Box::new(Container { resources, init }))
                }
                None => Self::None,
            },
        })
    }

    /// The container's compute system.
    pub fn system(&self) -> Option<&dyn ComputeSystem> {
        match self {
            Self::Process(container) => Some(container.as_ref()),
            Self::Vm(container) => Some(container),
            Self::None => None,
        }
    }

    /// What the container, whose main process is known, is doing. A VM that has ended has taken
    /// its containers with it.
    pub fn status(&self, main: &Main) -> Result<Status> {
        match self {
            Self::None => Ok(Status::Stopped),
            Self::Process(container) => Ok(container.status()?),
            Self::Vm(container) => {
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

    /// Why the VM of the container, which has stopped, is gone, if it is and nobody wanted it to.
    pub fn obituary(&self, record: &Record) -> Option<String> {
        match (self, &record.vm) {
            (Self::Vm(container), _) => match container.vm.ended()? {
                VmEnd::Lost(reason) => Some(reason),
                VmEnd::ShutDown => None,
            },
            (Self::None, Some(place)) => Some(format!("{} was deleted", place.host_id)),
            _ => None,
        }
    }

    /// Whether signals for all its processes still reach somebody once its main one has ended:
    /// processes can be left in a container without a pid namespace of its own.
    pub fn outlives_main_process(&self) -> bool {
        matches!(self, Self::Process(_))
    }
}

impl Existing {
    /// Sets limits, all that the resources name.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        match &self.service {
            Service::Process(container) => Ok(container.update(resources)?),
            Service::Vm(container) => Ok(container.update(resources)?),
            Service::None => self.require().map(|_| ()),
        }
    }

    /// Sets the schemata of its class of Intel RDT.
    pub fn update_rdt(&self, cache: Option<&str>, bandwidth: Option<&str>) -> Result<()> {
        match &self.service {
            Service::Process(container) => Ok(container.update_rdt(cache, bandwidth)?),
            Service::Vm(_) => bail!("a container in a VM has no class of Intel RDT"),
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

/// The directory of the VM host's entry; `None` if it is gone, also if another container has its
/// id now.
fn host_directory(
    store: &Store,
    entry: &Entry,
    record: &Record,
    place: &VmPlace,
) -> Option<std::path::PathBuf> {
    if record.is_vm_host() {
        return Some(entry.dir().to_owned());
    }
    let host = store.entry(&place.host_id).ok()?;
    let same = host.record().ok()?.unique_id == place.host_unique_id;
    same.then(|| host.dir().to_owned())
}
