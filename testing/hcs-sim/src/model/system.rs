//! Compute systems and what they may do in which state.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Failure, text};
use crate::hresult;
use crate::schema;
use crate::wire::SystemOperation;

/// All compute systems. Those that have ended stay as long as somebody has a handle.
#[derive(Debug, Default)]
pub struct Systems {
    systems: BTreeMap<u64, System>,
    last: u64,
}

/// A compute system.
#[derive(Debug)]
pub struct System {
    /// Its id. Another system can have it once this one has ended.
    pub id: String,
    /// What it was made from.
    pub document: Value,
    /// What it is doing.
    pub state: State,
    /// What was added to it while it ran, by its place.
    pub resources: BTreeMap<String, Value>,
    /// The number of the virtual machine it is in.
    pub host: Option<u64>,
    /// Its processes, those that ended among them.
    pub processes: BTreeMap<u32, Process>,
}

/// A process of a system.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its program.
    pub image: String,
    /// How it ended, if it has.
    pub exit_code: Option<u32>,
    /// Whether its system ends with it.
    pub is_init: bool,
    /// Whether it runs in a Linux guest.
    pub is_linux: bool,
    /// Whether its standard streams are a console.
    pub has_console: bool,
}

/// What a system is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not been started.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It has ended.
    Stopped(ExitType),
}

/// How a system ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitType {
    /// By itself, or it was asked to.
    Graceful,
    /// By force.
    Forced,
    /// Its virtual machine ended.
    Unexpected,
}

/// What is in a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestOs {
    /// Windows.
    Windows,
    /// Linux.
    Linux,
}

/// A system that has just ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Its number.
    pub system: u64,
    /// The document of the event, a `SystemExitStatus`.
    pub document: String,
}

impl State {
    /// Its name in the schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Stopped(_) => "Stopped",
        }
    }
}

impl ExitType {
    /// The document of the event that a system has ended so, a `SystemExitStatus`.
    pub fn document(self) -> String {
        let (name, status) = match self {
            Self::Graceful => ("GracefulExit", hresult::OK),
            Self::Forced => ("ForcedExit", hresult::OK),
            Self::Unexpected => ("UnexpectedExit", hresult::UNEXPECTED_EXIT),
        };
        json!({"Status": i32::from_ne_bytes(status.0.to_ne_bytes()), "ExitType": name}).to_string()
    }
}

impl System {
    /// What is in it.
    pub fn guest(&self) -> GuestOs {
        let devices = &self.document["VirtualMachine"]["Devices"];
        let chipset = &self.document["VirtualMachine"]["Chipset"];
        let linux = self.document["HostedSystem"].get("OciSpecification").is_some()
            || chipset.get("LinuxKernelDirect").is_some()
            // A Linux machine that boots from firmware; a Windows one has SMB shares.
            || (!devices.is_null() && devices.get("VirtualSmb").is_none());
        if linux { GuestOs::Linux } else { GuestOs::Windows }
    }

    /// Whether it is a virtual machine.
    pub fn is_machine(&self) -> bool {
        self.document.get("VirtualMachine").is_some()
    }

    /// The ids of its processes that run.
    pub fn running(&self) -> impl Iterator<Item = u32> {
        let running = self.processes.iter().filter(|(_, process)| process.exit_code.is_none());
        running.map(|(id, _)| *id)
    }

    /// A virtual machine's GUID for Hyper-V sockets, and any system's number for the service.
    fn runtime_id(number: u64) -> String {
        format!("00000000-0000-4000-8000-{number:012x}")
    }

    /// Refuses what isn't allowed in its state.
    ///
    /// # Errors
    /// If it has ended or is in no state for this.
    pub fn expect(&self, what: &str, allowed: &[State]) -> Result<(), Failure> {
        if let State::Stopped(_) = self.state {
            let message = format!("{what}: the system {} has ended", self.id);
            return Err(Failure::new(hresult::SYSTEM_ALREADY_STOPPED, message));
        }
        if !allowed.contains(&self.state) {
            let message = format!("{what}: the system {} is {}", self.id, self.state.name());
            return Err(Failure::new(hresult::INVALID_STATE, message));
        }
        Ok(())
    }
}

impl Systems {
    /// Makes a system.
    ///
    /// # Errors
    /// If the document isn't one, or the id is in use, or the virtual machine can't take it.
    pub fn create(&mut self, id: &str, document: &str) -> Result<u64, Failure> {
        let document = schema::system(document)?;
        if self.find(id).is_some() {
            let message = format!("there is a system {id} already");
            return Err(Failure::new(hresult::SYSTEM_ALREADY_EXISTS, message));
        }
        let host = match text(&document, "HostingSystemId") {
            None => None,
            Some(host) => {
                let Some(number) = self.find(host) else {
                    let message = format!("there is no virtual machine {host}");
                    return Err(Failure::new(hresult::SYSTEM_NOT_FOUND, message));
                };
                let machine = &self.systems[&number];
                machine.expect("hosting a system", &[State::Running])?;
                super::resources::can_host(machine, &document)?;
                Some(number)
            }
        };
        self.last += 1;
        self.systems.insert(
            self.last,
            System {
                id: id.to_owned(),
                document,
                state: State::Created,
                resources: BTreeMap::new(),
                host,
                processes: BTreeMap::new(),
            },
        );
        Ok(self.last)
    }

    /// The system with this id that has not ended.
    pub fn find(&self, id: &str) -> Option<u64> {
        let mut living = self.systems.iter();
        let living = living
            .find(|(_, system)| system.id == id && !matches!(system.state, State::Stopped(_)));
        living.map(|(number, _)| *number)
    }

    /// The system with this id that has not ended.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(&self, id: &str) -> Result<u64, Failure> {
        self.find(id).ok_or_else(|| {
            Failure::new(hresult::SYSTEM_NOT_FOUND, format!("there is no system {id}"))
        })
    }

    /// A system by its number.
    ///
    /// # Errors
    /// If it is gone.
    pub fn get(&self, number: u64) -> Result<&System, Failure> {
        self.systems.get(&number).ok_or_else(gone)
    }

    /// A system by its number, to change it.
    ///
    /// # Errors
    /// If it is gone.
    pub fn get_mut(&mut self, number: u64) -> Result<&mut System, Failure> {
        self.systems.get_mut(&number).ok_or_else(gone)
    }

    /// All systems that have not ended.
    pub fn living(&self) -> impl Iterator<Item = &System> {
        self.systems.values().filter(|system| !matches!(system.state, State::Stopped(_)))
    }

    /// The containers in a virtual machine that have not ended.
    pub fn hosted(&self, machine: u64) -> impl Iterator<Item = &System> {
        self.living().filter(move |system| system.host == Some(machine))
    }

    /// Forgets a system that has ended and of which nobody has a handle.
    pub fn forget(&mut self, number: u64) {
        if self.systems.get(&number).is_some_and(|s| matches!(s.state, State::Stopped(_))) {
            self.systems.remove(&number);
        }
    }

    /// Changes a system's state. What ended, and what ended with it, comes back.
    ///
    /// # Errors
    /// If this isn't allowed in its state.
    pub fn transition(
        &mut self,
        number: u64,
        operation: SystemOperation,
    ) -> Result<Vec<Stopped>, Failure> {
        let system = self.get_mut(number)?;
        let any = [State::Created, State::Running, State::Paused];
        let (what, allowed) = match operation {
            SystemOperation::Start => ("starting", &any[..1]),
            SystemOperation::ShutDown => ("shutting down", &any[1..2]),
            SystemOperation::Pause => ("pausing", &any[1..2]),
            SystemOperation::Resume => ("resuming", &any[2..]),
            SystemOperation::Terminate => ("terminating", &any[..]),
            SystemOperation::Modify | SystemOperation::GetProperties => ("", &any[..]),
        };
        system.expect(what, allowed)?;
        match operation {
            SystemOperation::Start | SystemOperation::Resume => system.state = State::Running,
            SystemOperation::Pause => system.state = State::Paused,
            SystemOperation::ShutDown => return Ok(self.stop(number, ExitType::Graceful)),
            SystemOperation::Terminate => return Ok(self.stop(number, ExitType::Forced)),
            SystemOperation::Modify | SystemOperation::GetProperties => {}
        }
        Ok(Vec::new())
    }

    /// Ends a system, and those in it first. Says nothing of those that have ended before.
    pub fn stop(&mut self, number: u64, exit: ExitType) -> Vec<Stopped> {
        let inside: Vec<u64> = self
            .systems
            .iter()
            .filter(|(_, system)| system.host == Some(number))
            .map(|(number, _)| *number)
            .collect();
        let mut stopped: Vec<Stopped> =
            inside.into_iter().flat_map(|number| self.stop(number, ExitType::Unexpected)).collect();
        if let Some(system) = self.systems.get_mut(&number)
            && !matches!(system.state, State::Stopped(_))
        {
            system.state = State::Stopped(exit);
            stopped.push(Stopped { system: number, document: exit.document() });
        }
        stopped
    }

    /// Records that a process has ended. Its system may end with it.
    pub fn process_ended(&mut self, number: u64, id: u32, code: u32) -> Vec<Stopped> {
        let Some(process) =
            self.systems.get_mut(&number).and_then(|system| system.processes.get_mut(&id))
        else {
            return Vec::new();
        };
        process.exit_code = Some(code);
        if process.is_init { self.stop(number, ExitType::Graceful) } else { Vec::new() }
    }

    /// What `HcsGetComputeSystemProperties` answers.
    ///
    /// # Errors
    /// If the query isn't one, or the system has ended.
    pub fn properties(&self, number: u64, query: Option<&str>) -> Result<String, Failure> {
        let system = self.get(number)?;
        let query = match query {
            Some(query) if !query.is_empty() => schema::parse("System_PropertyQuery", query)?,
            _ => Value::Null,
        };
        let all = [State::Created, State::Running, State::Paused];
        system.expect("asking for properties", &all)?;
        let mut properties = system.basic_properties(number);
        for property in query["PropertyTypes"].as_array().into_iter().flatten() {
            match property.as_str().unwrap_or_default() {
                "ProcessList" => {
                    system.expect("asking for processes", &all[1..])?;
                    let list = system.running().map(
                        |id| json!({"ProcessId": id, "ImageName": system.processes[&id].image}),
                    );
                    properties["ProcessList"] = list.collect();
                }
                "GuestConnection" => {
                    if !system.is_machine() {
                        let message = "only a virtual machine has a connection to a guest";
                        return Err(Failure::new(hresult::NOT_CONFIGURED, message));
                    }
                    system.expect("asking for the connection to the guest", &all[1..])?;
                    properties["GuestConnectionInfo"] = json!({
                        "SupportedSchemaVersions": [{"Major": 2, "Minor": 1}],
                        "ProtocolVersion": 4,
                        "GuestDefinedCapabilities": {
                            "NamespaceAddRequestSupported": true,
                            "SignalProcessSupported": true,
                        },
                    });
                }
                "TerminateOnLastHandleClosed" => {
                    properties["TerminateOnLastHandleClosed"] = system.ends_with_handles().into();
                }
                other => {
                    let message = format!("this stand-in has no property {other}");
                    return Err(Failure::new(hresult::NOT_IMPLEMENTED, message));
                }
            }
        }
        Ok(properties.to_string())
    }

    /// What `HcsEnumerateComputeSystems` answers.
    ///
    /// # Errors
    /// If the query isn't one.
    pub fn enumerate(&self, query: Option<&str>) -> Result<String, Failure> {
        let query = match query {
            Some(query) if !query.is_empty() => schema::parse("SystemQuery", query)?,
            _ => Value::Null,
        };
        let asked = |field: &str, value: Option<&str>| {
            let wanted = query[field].as_array();
            wanted.is_none_or(|wanted| wanted.iter().any(|one| one.as_str() == value))
        };
        let found = self.systems.iter().filter(|(_, system)| {
            !matches!(system.state, State::Stopped(_))
                && asked("Ids", Some(&system.id))
                && asked("Owners", text(&system.document, "Owner"))
                && asked("Types", Some(system.kind()))
        });
        let found: Value = found.map(|(number, system)| system.basic_properties(*number)).collect();
        Ok(found.to_string())
    }
}

impl System {
    /// Whether it ends when nobody has a handle of it any more.
    pub fn ends_with_handles(&self) -> bool {
        self.document["ShouldTerminateOnLastHandleClosed"] == true
    }

    fn kind(&self) -> &'static str {
        if self.is_machine() { "VirtualMachine" } else { "Container" }
    }

    fn basic_properties(&self, number: u64) -> Value {
        let os = match self.guest() {
            GuestOs::Windows => "Windows",
            GuestOs::Linux => "Linux",
        };
        let mut properties = json!({
            "Id": self.id,
            "SystemType": self.kind(),
            "RuntimeOsType": os,
            "RuntimeId": Self::runtime_id(number),
            "State": self.state.name(),
        });
        for field in ["Owner", "HostingSystemId"] {
            if let Some(value) = self.document.get(field) {
                properties[field] = value.clone();
            }
        }
        properties
    }
}

fn gone() -> Failure {
    Failure::new(hresult::SYSTEM_ALREADY_STOPPED, "the system is gone")
}
