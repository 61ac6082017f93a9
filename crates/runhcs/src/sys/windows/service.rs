//! What runs a container on Windows: the Host Compute Service.

use anyhow::Result;
use runhcs_compute::{ComputeSystem, ContainerId, Error, Scope, Signal, Status};
use runhcs_hcs::schema::{PropertyType, SystemState};
use runhcs_hcs::service::System;
use runhcs_hcs::signals::{Delivery, SignalSupport, deliver};
use runhcs_hcs::{Failure, Kind};
use runhcs_state::{Entry, Record, Store};

use super::foreground::Told;
use crate::existing::{Main, config};

/// What runs a container.
#[derive(Debug)]
pub struct Service {
    container: Container,
}

/// The compute system of a utility VM, by the id of its host.
pub fn vm_id(host: &ContainerId) -> String {
    format!("{host}@vm")
}

impl Service {
    /// Finds what runs the container of an entry.
    pub fn open(
        _store: &Store,
        entry: &Entry,
        record: &Record,
        main: Option<Main>,
    ) -> Result<Self> {
        let guest = match config(entry) {
            Ok(spec) if spec.linux().is_some() => Guest::Linux,
            _ => Guest::Windows,
        };
        Ok(Self {
            container: Container {
                id: record.id.clone(),
                vm: record.vm.as_ref().map(|vm| vm_id(&vm.host_id)),
                guest,
                guest_pid: main.and_then(|main| main.guest_pid),
                has_console: record.terminal,
            },
        })
    }

    /// The container's compute system.
    pub fn system(&self) -> Option<&dyn ComputeSystem> {
        Some(&self.container)
    }

    /// What the container, whose shim is known, is doing. A container without its shim has ended.
    pub fn status(&self, main: &Main) -> Result<Status> {
        if !main.process.is_alive()? {
            return Ok(Status::Stopped);
        }
        Ok(self.container.status()?)
    }

    /// That the VM of the container, which has stopped, has ended, if it has.
    pub fn obituary(&self, _record: &Record) -> Option<String> {
        let vm = self.container.vm.as_ref()?;
        let gone = matches!(System::find(vm), Ok(None));
        gone.then(|| format!("the service has no compute system {vm}"))
    }

    /// Whether signals for all its processes still reach somebody once its main one has ended:
    /// they end with it.
    pub fn outlives_main_process(&self) -> bool {
        false
    }

    /// The container.
    pub fn container(&self) -> &Container {
        &self.container
    }
}

/// What a container's processes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Of Linux, in a VM.
    Linux,
    /// Of Windows.
    Windows,
}

/// A container of the service.
#[derive(Debug)]
pub struct Container {
    /// Its id; that of its compute system, too.
    pub id: ContainerId,
    /// The compute system of the VM that it is in.
    vm: Option<String>,
    /// What its processes are.
    pub guest: Guest,
    /// Its init process, once it has been started.
    guest_pid: Option<u32>,
    has_console: bool,
}

impl Container {
    /// Its compute system, for an operation.
    ///
    /// # Errors
    /// [`Error::InvalidStatus`] if it has ended: then there is none any more.
    pub fn open(&self, operation: &'static str) -> runhcs_compute::Result<System> {
        match System::find(self.id.as_str()) {
            Ok(Some(system)) => Ok(system),
            Ok(None) => {
                let (id, status) = (self.id.clone(), Status::Stopped);
                Err(Error::InvalidStatus { operation, id, status })
            }
            Err(failure) => Err(self.error(operation, failure)),
        }
    }

    /// What its processes can be told. In a VM it is the guest that says so.
    fn signal_support(&self) -> runhcs_compute::Result<SignalSupport> {
        let supported = match &self.vm {
            None => true,
            Some(vm) => {
                let system = System::open(vm).map_err(|failure| self.error("signal", failure))?;
                let properties = system.properties(&[PropertyType::GuestConnection]);
                let properties = properties.map_err(|failure| self.error("signal", failure))?;
                properties
                    .guest_connection_info
                    .is_some_and(|info| info.guest_defined_capabilities.signal_process_supported)
            }
        };
        Ok(match (supported, self.guest) {
            (false, _) => SignalSupport::None,
            (true, Guest::Linux) => SignalSupport::Linux,
            // An emulated console takes no control events.
            (true, Guest::Windows) if self.has_console => SignalSupport::None,
            (true, Guest::Windows) => SignalSupport::Windows,
        })
    }

    /// Sends a signal to one of its processes, by its pid in the guest.
    pub fn signal_process(
        &self,
        system: &System,
        pid: u32,
        signal: Signal,
    ) -> runhcs_compute::Result<()> {
        let failed = |failure| self.error("signal", failure);
        let delivery = deliver(signal, self.signal_support()?)
            .map_err(|refused| Error::Unsupported(refused.to_string()))?;
        let process = system.open_process(pid).map_err(failed)?;
        match delivery {
            Delivery::Signal(options) => process.signal(&options).map_err(failed),
            Delivery::Terminate => process.terminate().map_err(failed),
        }
    }

    /// Tells one of its processes what happened at the caller's console, by its pid in the guest.
    pub fn tell(&self, pid: u32, told: Told) -> Result<()> {
        match told {
            Told::Signal(signal) => Ok(self.signal_process(&self.open("signal")?, pid, signal)?),
            Told::Size(size) => {
                Ok(self.open("resize a terminal of")?.open_process(pid)?.resize(size)?)
            }
        }
    }

    fn error(&self, operation: &'static str, failure: Failure) -> Error {
        match failure.kind {
            Kind::NotFound => Error::NotFound(self.id.clone()),
            Kind::AlreadyStopped => {
                Error::InvalidStatus { operation, id: self.id.clone(), status: Status::Stopped }
            }
            Kind::NotSupported => Error::Unsupported(failure.to_string()),
            _ => Error::failed(format!("{operation} container {}", self.id), failure),
        }
    }
}

impl ComputeSystem for Container {
    fn status(&self) -> runhcs_compute::Result<Status> {
        let system = match System::find(self.id.as_str()) {
            Ok(Some(system)) => system,
            Ok(None) => return Ok(Status::Stopped),
            Err(failure) => return Err(self.error("inspect", failure)),
        };
        let properties = match system.properties(&[]) {
            Ok(properties) => properties,
            Err(failure) if matches!(failure.kind, Kind::AlreadyStopped | Kind::NotFound) => {
                return Ok(Status::Stopped);
            }
            Err(failure) => return Err(self.error("inspect", failure)),
        };
        match properties.state {
            _ if properties.stopped => Ok(Status::Stopped),
            None | Some(SystemState::Created) => Ok(Status::Created),
            Some(SystemState::Running) => Ok(Status::Running),
            Some(SystemState::Paused) => Ok(Status::Paused),
            Some(SystemState::Stopped) => Ok(Status::Stopped),
            Some(SystemState::SavedAsTemplate | SystemState::Unknown) => {
                let context = format!("inspect container {}", self.id);
                Err(Error::failed(context, "the service names a state that runhcs doesn't know"))
            }
        }
    }

    fn start(&self) -> runhcs_compute::Result<()> {
        self.open("start")?.start().map_err(|failure| self.error("start", failure))
    }

    fn signal(&self, signal: Signal, scope: Scope) -> runhcs_compute::Result<()> {
        let system = self.open("signal")?;
        let failed = |failure| self.error("signal", failure);
        if scope == Scope::All {
            if signal != Signal::KILL {
                return Err(Error::Unsupported(format!(
                    "{signal} can't be sent to all processes of a container on Windows; KILL can"
                )));
            }
            return system.terminate().map_err(failed);
        }
        let Some(pid) = self.guest_pid else {
            // There is no process yet that could be told; it can only be ended.
            return match signal {
                Signal::KILL | Signal::TERM => system.terminate().map_err(failed),
                _ => Err(Error::InvalidStatus {
                    operation: "signal",
                    id: self.id.clone(),
                    status: Status::Created,
                }),
            };
        };
        self.signal_process(&system, pid, signal)
    }

    fn pause(&self) -> runhcs_compute::Result<()> {
        self.open("pause")?.pause().map_err(|failure| self.error("pause", failure))
    }

    fn resume(&self) -> runhcs_compute::Result<()> {
        self.open("resume")?.resume().map_err(|failure| self.error("resume", failure))
    }

    fn processes(&self) -> runhcs_compute::Result<Vec<u32>> {
        let properties = self.open("list processes of")?.properties(&[PropertyType::ProcessList]);
        let properties = properties.map_err(|failure| self.error("list processes of", failure))?;
        Ok(properties.process_list.iter().map(|process| process.process_id).collect())
    }

    fn delete(&self) -> runhcs_compute::Result<()> {
        /// How long the service may take to end it.
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
        let failed = |failure| self.error("delete", failure);
        match System::find(self.id.as_str()).map_err(failed)? {
            Some(system) => system.end(PATIENCE).map_err(failed),
            None => Ok(()),
        }
    }
}
