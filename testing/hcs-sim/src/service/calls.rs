//! What each function of the service does.

use std::sync::Arc;

use serde_json::Value;

use super::{Answer, Service, service_properties};
use crate::hresult::{self, Hresult};
use crate::model::{self, Connection, Failure, Target};
use crate::schema;
use crate::sys::Running;
use crate::wire::{Call, ProcessInfo, ProcessOperation, SystemOperation};

impl Service {
    pub(super) fn perform(
        &self,
        connection: Connection,
        caller: u32,
        call: Call,
    ) -> Result<Answer, Failure> {
        match call {
            Call::Create { handle, id, document } => {
                let mut state = self.state();
                let model = &mut state.model;
                let number = model.systems.create(&id, &document)?;
                if let Err(failure) = model.can_make(number) {
                    model.systems.stop(number, model::ExitType::Forced);
                    model.systems.forget(number);
                    return Err(failure);
                }
                model.handles.open(connection, handle, Target::System(number));
                Ok(Answer::default())
            }
            Call::Open { handle, id } => {
                let mut state = self.state();
                let number = state.model.systems.open(&id)?;
                state.model.handles.open(connection, handle, Target::System(number));
                Ok(Answer::default())
            }
            Call::System { handle, operation, document } => {
                self.system(connection, handle, operation, document.as_deref())
            }
            Call::Enumerate { query } => {
                self.state().model.systems.enumerate(query.as_deref()).map(Answer::document)
            }
            Call::CreateProcess { system, handle, document } => {
                self.create_process(connection, caller, system, handle, &document)
            }
            Call::OpenProcess { system, handle, process } => {
                let mut state = self.state();
                let number = state.model.handles.system(connection, system)?;
                state.model.systems.process(number, process)?;
                state.model.handles.open(connection, handle, Target::Process(number, process));
                if state.model.systems.process(number, process)?.exit_code.is_some() {
                    state.send_process_exit(connection, handle, number, process);
                }
                Ok(Answer::default())
            }
            Call::Process { handle, operation, document } => {
                self.process(connection, handle, operation, document.as_deref())
            }
            Call::Close { handle } => {
                let target = self.state().model.handles.close(connection, handle);
                if let Some(target) = target {
                    self.closed(target);
                }
                Ok(Answer::default())
            }
            Call::ServiceProperties { query } => {
                let query = match query {
                    Some(query) => schema::parse("Service_PropertyQuery", &query)?,
                    None => Value::Null,
                };
                service_properties(&query).map(Answer::document)
            }
            Call::Access { operation, machine, path } => {
                let mut state = self.state();
                state.model.storage.access(operation, machine.as_deref(), &path)?;
                Ok(Answer::default())
            }
            Call::Layer { operation, path, other, layers, options } => {
                let document = self.state().model.storage.layer(
                    operation,
                    &path,
                    other.as_deref(),
                    layers.as_deref(),
                    options.as_deref(),
                )?;
                Ok(Answer { document, process: None })
            }
            Call::CreateDisk { path, size } => {
                model::create_disk(&path, size)?;
                Ok(Answer::default())
            }
            Call::Disk { path, attach, permanent } => {
                let storage = &mut self.state().model.storage;
                if attach {
                    storage.attach_disk(&path, (!permanent).then_some(connection))?;
                } else {
                    storage.detach_disk(&path)?;
                }
                Ok(Answer::default())
            }
            Call::Network { operation, id, document } => {
                let networks = &mut self.state().model.networks;
                let document = networks.perform(operation, id.as_deref(), document.as_deref())?;
                Ok(Answer { document, process: None })
            }
        }
    }

    fn system(
        &self,
        connection: Connection,
        handle: u64,
        operation: SystemOperation,
        document: Option<&str>,
    ) -> Result<Answer, Failure> {
        let mut state = self.state();
        let model = &mut state.model;
        let number = model.handles.system(connection, handle)?;
        match operation {
            SystemOperation::GetProperties => {
                return model.systems.properties(number, document).map(Answer::document);
            }
            SystemOperation::Modify => {
                model.systems.modify(number, document, &model.storage)?;
                return Ok(Answer::default());
            }
            SystemOperation::Pause => {
                if let Some(options) = document.filter(|options| !options.is_empty()) {
                    schema::parse("PauseOptions", options)?;
                }
            }
            _ if document.is_some_and(|options| !options.is_empty()) => {
                let message = "the options of this function are reserved and must be null";
                return Err(Failure::new(hresult::INVALID_ARGUMENT, message));
            }
            _ => {}
        }
        let stopped = model.systems.transition(number, operation)?;
        drop(state);
        self.finish(stopped);
        Ok(Answer::default())
    }

    fn create_process(
        &self,
        connection: Connection,
        caller: u32,
        system: u64,
        handle: u64,
        document: &str,
    ) -> Result<Answer, Failure> {
        let mut state = self.state();
        let number = state.model.handles.system(connection, system)?;
        let launch = state.model.systems.launch(number, document)?;
        // The lock is kept, so that the system can't end in between.
        let (running, info) = Running::start(&launch, caller).map_err(|error| {
            let message = format!("starting {:?}: {error}", launch.program);
            Failure::new(Hresult::from_system(&error), message)
        })?;
        let running = Arc::new(running);
        let id = running.id();
        state.running.insert((number, id), running.clone());
        state.model.systems.get_mut(number)?.processes.insert(id, launch.process());
        state.model.handles.open(connection, handle, Target::Process(number, id));
        drop(state);
        self.watch(number, running);
        Ok(Answer { document: None, process: Some(info) })
    }

    fn process(
        &self,
        connection: Connection,
        handle: u64,
        operation: ProcessOperation,
        document: Option<&str>,
    ) -> Result<Answer, Failure> {
        let state = self.state();
        let (number, id) = state.model.handles.process(connection, handle)?;
        let systems = &state.model.systems;
        match operation {
            ProcessOperation::GetInfo => {
                // The pipes went to whoever made the process.
                let process = Some(ProcessInfo { process: id, ..ProcessInfo::default() });
                return Ok(Answer { document: None, process });
            }
            ProcessOperation::GetProperties => {
                return systems.process_status(number, id).map(Answer::document);
            }
            ProcessOperation::Modify => {
                model::modify(systems.running(number, id)?, document)?;
            }
            ProcessOperation::Signal | ProcessOperation::Terminate => {
                let signal = match operation {
                    ProcessOperation::Signal => systems.signal(number, id, document)?,
                    _ => systems.signal(number, id, None)?,
                };
                let running = state.running.get(&(number, id)).cloned();
                drop(state);
                if let Some(running) = running {
                    running.signal(signal);
                }
            }
        }
        Ok(Answer::default())
    }
}
