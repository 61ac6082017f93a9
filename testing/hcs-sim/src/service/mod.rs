//! The service: connections, calls, processes that run.

mod calls;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::faults::{Action, Fault};
use crate::hresult;
use crate::model::{Connection, ExitType, Failure, Model, Stopped, Target};
use crate::sys::{Caller, Running};
use crate::wire::{
    Call, CallRecord, Control, Event, EventKind, Message, ProcessInfo, Reply, Request, What,
};

/// A service, shared by the threads of its connections.
#[derive(Clone, Debug)]
pub struct Service(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    model: Model,
    faults: Vec<Fault>,
    running: HashMap<(u64, u32), Arc<Running>>,
    connections: HashMap<Connection, TcpStream>,
    /// Who has made calls, found by the first one: others get the ids of those who have gone.
    callers: HashMap<Connection, Arc<Caller>>,
    last_connection: u64,
}

/// What a call that worked answers.
#[derive(Debug, Default)]
struct Answer {
    document: Option<String>,
    process: Option<ProcessInfo>,
}

impl Answer {
    fn document(document: String) -> Self {
        Self { document: Some(document), process: None }
    }
}

/// Serves until the process ends.
///
/// # Errors
/// If connections can't be taken any more.
pub fn serve(listener: &TcpListener) -> io::Result<()> {
    let service = Service(Arc::default());
    loop {
        let (stream, _) = listener.accept()?;
        let service = service.clone();
        std::thread::spawn(move || service.connection(stream));
    }
}

/// A listener on a port of its own.
///
/// # Errors
/// If there is none.
pub fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a caller until it goes. A call waits for the one before it, as the calls of a thread
    /// do anyway; a call that waits for something of its own does so in a thread.
    fn connection(&self, stream: TcpStream) {
        let connection = {
            let mut state = self.state();
            state.last_connection += 1;
            let connection = Connection(state.last_connection);
            let Ok(writer) = stream.try_clone() else { return };
            state.connections.insert(connection, writer);
            connection
        };
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            match serde_json::from_str::<Request>(&line) {
                Ok(request) => self.request(connection, request),
                Err(error) => {
                    eprintln!("hcs-sim: not a request: {error}: {line}");
                    break;
                }
            }
        }
        self.disconnect(connection);
    }

    fn request(&self, connection: Connection, request: Request) {
        let number = request.number;
        let answer = match request.what {
            What::Control(control) => Some(self.control(control)),
            What::Call(call) => {
                let service = self.clone();
                // Only the end of a system takes long: its processes have to end.
                if matches!(&call, Call::System { .. }) {
                    let caller = request.caller;
                    std::thread::spawn(move || {
                        if let Some(answer) = service.call(connection, caller, call) {
                            service.reply(connection, number, answer);
                        }
                    });
                    return;
                }
                self.call(connection, request.caller, call)
            }
        };
        if let Some(answer) = answer {
            self.reply(connection, number, answer);
        }
    }

    fn reply(&self, connection: Connection, number: u64, answer: Result<Answer, Failure>) {
        let reply = match answer {
            Ok(answer) => Reply {
                number,
                result: hresult::OK,
                document: answer.document,
                process: answer.process,
            },
            Err(failure) => Reply {
                number,
                result: failure.result,
                document: Some(failure.document()),
                process: None,
            },
        };
        self.state().send(connection, &Message::Reply(reply));
    }

    fn control(&self, control: Control) -> Result<Answer, Failure> {
        let mut state = self.state();
        let document = match control {
            Control::Faults(texts) => {
                let faults: Result<_, _> = texts.iter().map(|text| text.parse()).collect();
                state.faults = faults.map_err(|error: crate::faults::NotAFault| {
                    Failure::new(hresult::INVALID_ARGUMENT, error.to_string())
                })?;
                None
            }
            Control::Snapshot => serde_json::to_string(&state.model.snapshot()).ok(),
            Control::Calls => serde_json::to_string(&std::mem::take(&mut state.model.calls)).ok(),
            Control::Endpoint { id, document } => {
                state.model.networks.add_endpoint(&id, document);
                None
            }
        };
        Ok(Answer { document, process: None })
    }

    /// Does a call, unless a fault comes between. Nothing comes back from a call that hangs.
    fn call(
        &self,
        connection: Connection,
        caller: u32,
        call: Call,
    ) -> Option<Result<Answer, Failure>> {
        let function = call.function();
        let about = self.state().about(connection, &call);
        let (process, fault) = {
            let mut state = self.state();
            let process = state.callers.entry(connection);
            let process = Arc::clone(process.or_insert_with(|| Arc::new(Caller::find(caller))));
            let met: Vec<_> =
                state.faults.iter_mut().filter_map(|fault| fault.meets(function, &about)).collect();
            (process, met.first().copied())
        };
        let failed = |code| Failure::new(code, format!("{function} failed on purpose"));
        let answer = match fault {
            None => Some(self.perform(connection, caller, call)),
            Some(Action::Fail(code)) => Some(Err(failed(code))),
            Some(Action::Late(code)) => {
                Some(self.perform(connection, caller, call).and(Err(failed(code))))
            }
            Some(Action::Hang) => None,
            Some(Action::Kill) => {
                process.kill();
                None
            }
        };
        let (result, message) = match &answer {
            None => (None, String::new()),
            Some(Ok(_)) => (Some(hresult::OK), String::new()),
            Some(Err(failure)) => (Some(failure.result), failure.message.clone()),
        };
        let record = CallRecord { function: function.to_owned(), about, result, message };
        self.state().model.calls.push(record);
        answer
    }

    /// Closes all that a caller had.
    fn disconnect(&self, connection: Connection) {
        let targets = {
            let mut state = self.state();
            state.connections.remove(&connection);
            state.callers.remove(&connection);
            state.model.storage.disconnect(connection);
            state.model.handles.disconnect(connection)
        };
        for target in targets {
            self.closed(target);
        }
    }

    /// What follows from closing a handle: a system may end with its last one.
    fn closed(&self, target: Target) {
        let Target::System(number) = target else { return };
        let mut state = self.state();
        if !state.model.handles.of(target).is_empty() {
            return;
        }
        let ends = state.model.systems.get(number).is_ok_and(|system| system.ends_with_handles());
        let stopped =
            if ends { state.model.systems.stop(number, ExitType::Forced) } else { Vec::new() };
        drop(state);
        self.finish(stopped);
        self.state().model.systems.forget(number);
    }

    /// Ends the processes of systems that have stopped, then tells those who have handles.
    fn finish(&self, stopped: Vec<Stopped>) {
        for one in stopped {
            // Those that have ended may have left others in their jobs.
            let processes: Vec<_> = {
                let mut state = self.state();
                state
                    .running
                    .extract_if(|(system, _), _| *system == one.system)
                    .map(|(_, process)| process)
                    .collect()
            };
            for process in &processes {
                process.kill(SYSTEM_STOPPED);
            }
            for process in &processes {
                process.wait();
            }
            let state = self.state();
            for (connection, handle) in state.model.handles.of(Target::System(one.system)) {
                let document = one.document.clone();
                let event = Event { handle, kind: EventKind::SystemExited, document };
                state.send(connection, &Message::Event(event));
            }
        }
    }

    /// Waits for a process in a thread of its own and tells those who have handles when it ends.
    fn watch(&self, system: u64, process: Arc<Running>) {
        let service = self.clone();
        std::thread::spawn(move || {
            let (id, code) = (process.id(), process.wait());
            // What it started and left running ends with it only in a container's end.
            let mut state = service.state();
            let stopped = state.model.systems.process_ended(system, id, code);
            for (connection, handle) in state.model.handles.of(Target::Process(system, id)) {
                state.send_process_exit(connection, handle, system, id);
            }
            drop(state);
            service.finish(stopped);
        });
    }
}

/// The exit code of a process whose system has been stopped (`STATUS_SHUTDOWN_IN_PROGRESS`).
const SYSTEM_STOPPED: u32 = 0xC000_02FE;

impl State {
    fn send(&self, connection: Connection, message: &Message) {
        let Some(mut stream) = self.connections.get(&connection) else { return };
        let Ok(mut line) = serde_json::to_string(message) else { return };
        line.push('\n');
        // A caller that has gone is noticed by the thread that reads from it.
        let _ = stream.write_all(line.as_bytes());
    }

    fn send_process_exit(&self, connection: Connection, handle: u64, system: u64, id: u32) {
        if let Ok(document) = self.model.systems.process_status(system, id) {
            let event = Event { handle, kind: EventKind::ProcessExited, document };
            self.send(connection, &Message::Event(event));
        }
    }

    /// What a call is about, for its record and for faults.
    fn about(&self, connection: Connection, call: &Call) -> String {
        let system = |handle: u64| {
            let number = self.model.handles.system(connection, handle).ok();
            let system = number.and_then(|number| self.model.systems.get(number).ok());
            system.map_or_else(String::new, |system| system.id.clone())
        };
        let process = |handle: u64| {
            let target = self.model.handles.process(connection, handle).ok();
            target.map_or_else(String::new, |(_, id)| id.to_string())
        };
        let with = |name: String, document: &Option<String>| match document {
            Some(document) => format!("{name} {document}"),
            None => name,
        };
        match call {
            Call::Create { id, document, .. } => format!("{id} {document}"),
            Call::Open { id, .. } => id.clone(),
            Call::System { handle, document, .. } => with(system(*handle), document),
            Call::CreateProcess { system: handle, document, .. } => {
                format!("{} {document}", system(*handle))
            }
            Call::OpenProcess { system: handle, process, .. } => {
                format!("{} {process}", system(*handle))
            }
            Call::Process { handle, document, .. } => with(process(*handle), document),
            Call::Close { handle } => match self.model.handles.system(connection, *handle) {
                Ok(_) => system(*handle),
                Err(_) => process(*handle),
            },
            Call::Enumerate { query } | Call::ServiceProperties { query } => {
                query.clone().unwrap_or_default()
            }
            Call::Access { machine, path, .. } => {
                format!("{} {path}", machine.as_deref().unwrap_or("*"))
            }
            Call::Layer { path, layers, .. } => with(path.clone(), layers),
            Call::CreateDisk { path, size } => format!("{path} {size}"),
            Call::Disk { path, .. } => path.clone(),
            Call::Network { id, document, .. } => with(id.clone().unwrap_or_default(), document),
        }
    }
}

/// A document with the properties of the service: the schemas that it knows.
fn service_properties(query: &Value) -> Result<String, Failure> {
    let asked = query["PropertyTypes"].as_array().cloned().unwrap_or_default();
    if asked.iter().any(|property| property != "Basic") {
        let message = "this stand-in has the basic properties only";
        return Err(Failure::new(hresult::NOT_IMPLEMENTED, message));
    }
    let versions = serde_json::json!([{"Major": 1, "Minor": 0}, {"Major": 2, "Minor": 4}]);
    let basic = serde_json::json!({"SupportedSchemaVersions": versions});
    Ok(serde_json::json!({"Properties": [basic]}).to_string())
}
