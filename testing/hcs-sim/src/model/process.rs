//! Processes: what their documents ask for.

use serde_json::{Value, json};

use super::system::{GuestOs, Process, State, System, Systems};
use super::{Failure, text};
use crate::schema::{self, Violation};
use crate::{guest, hresult};

/// A process to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// What to run.
    pub program: Program,
    /// Where; the service's own directory if absent.
    pub directory: Option<String>,
    /// What to add to the environment.
    pub environment: Vec<(String, String)>,
    /// Whether there are pipes for standard input, output and error.
    pub pipes: [bool; 3],
    /// Whether its streams are a console.
    pub console: bool,
    /// Whether the system ends with it.
    pub is_init: bool,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A Windows program, by a command line.
    Windows(String),
    /// A command of the guest's program.
    Linux(Vec<String>),
}

/// What a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// A Linux signal's number; the guest's program may have asked for it.
    pub number: Option<u8>,
    /// The exit code of a process that it ends.
    pub exit_code: u32,
}

impl Signal {
    /// What `HcsTerminateProcess` does to a Linux process: `SIGKILL`.
    const KILL: Self = Self { number: None, exit_code: 128 + 9 };
    /// What it does to a Windows process (`DBG_TERMINATE_PROCESS`).
    const TERMINATE: Self = Self { number: None, exit_code: 0x4001_0004 };
    /// What Ctrl-C and its like do to a Windows process that doesn't handle them
    /// (`STATUS_CONTROL_C_EXIT`).
    const CONTROL: Self = Self { number: None, exit_code: 0xC000_013A };
}

impl Launch {
    /// The process, once it runs.
    pub fn process(&self) -> Process {
        let image = match &self.program {
            Program::Windows(line) => program_of(line).0.to_owned(),
            Program::Linux(arguments) => arguments[0].clone(),
        };
        Process {
            image,
            exit_code: None,
            is_init: self.is_init,
            is_linux: matches!(self.program, Program::Linux(_)),
            has_console: self.console,
        }
    }
}

impl Systems {
    /// What `HcsCreateProcess` starts.
    ///
    /// # Errors
    /// If the document isn't one, or the system can't run it.
    pub fn launch(&self, number: u64, document: &str) -> Result<Launch, Failure> {
        let system = self.get(number)?;
        system.expect("starting a process", &[State::Running])?;
        match system.guest() {
            GuestOs::Windows => windows(&schema::parse("ProcessParameters", document)?),
            GuestOs::Linux => linux(system, &schema::parse("LinuxProcessParameters", document)?),
        }
    }

    /// A process that runs.
    ///
    /// # Errors
    /// If there is none, or it has ended.
    pub fn running(&self, number: u64, id: u32) -> Result<&Process, Failure> {
        let system = self.get(number)?;
        if let State::Stopped(_) = system.state {
            let message = format!("the system {} has ended", system.id);
            return Err(Failure::new(hresult::SYSTEM_ALREADY_STOPPED, message));
        }
        match self.process(number, id)? {
            process if process.exit_code.is_none() => Ok(process),
            _ => {
                let message = format!("the process {id} has ended");
                Err(Failure::new(hresult::PROCESS_ALREADY_STOPPED, message))
            }
        }
    }

    /// A process, also one that has ended.
    ///
    /// # Errors
    /// If there is none.
    pub fn process(&self, number: u64, id: u32) -> Result<&Process, Failure> {
        let system = self.get(number)?;
        system.processes.get(&id).ok_or_else(|| {
            let message = format!("the system {} has no process {id}", system.id);
            Failure::new(hresult::NOT_FOUND, message)
        })
    }

    /// What a signal, or a termination if there is none, does to a process.
    ///
    /// # Errors
    /// If the process has ended, or its system doesn't know the signal.
    pub fn signal(&self, number: u64, id: u32, options: Option<&str>) -> Result<Signal, Failure> {
        let process = self.running(number, id)?;
        match (options.filter(|options| !options.is_empty()), process.is_linux) {
            (None, true) => Ok(Signal::KILL),
            (None, false) => Ok(Signal::TERMINATE),
            (Some(options), true) => {
                let options = schema::parse("LinuxSignal", options)?;
                let signal = options["Signal"].as_u64().and_then(|n| u8::try_from(n).ok());
                match signal {
                    Some(number @ 1..=64) => {
                        Ok(Signal { number: Some(number), exit_code: 128 + u32::from(number) })
                    }
                    _ => Err(Violation::new("LinuxSignal", "there is no such signal").into()),
                }
            }
            (Some(options), false) => {
                schema::parse("SignalProcessOptions", options)?;
                Ok(Signal::CONTROL)
            }
        }
    }

    /// What `HcsGetProcessProperties` answers, and what the event of a process's end says.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn process_status(&self, number: u64, id: u32) -> Result<String, Failure> {
        let process = self.process(number, id)?;
        let mut status = json!({"ProcessId": id, "Exited": process.exit_code.is_some()});
        if let Some(code) = process.exit_code {
            status["ExitCode"] = code.into();
            status["LastWaitResult"] = 0.into();
        }
        Ok(status.to_string())
    }
}

/// What `HcsModifyProcess` asks for.
///
/// # Errors
/// If the document isn't one, or the process has no console.
pub fn modify(process: &Process, document: Option<&str>) -> Result<Value, Failure> {
    let request = schema::parse("ProcessModifyRequest", document.unwrap_or_default())?;
    let (field, other) = match text(&request, "Operation") {
        Some("ConsoleSize") => ("ConsoleSize", "CloseHandle"),
        _ => ("CloseHandle", "ConsoleSize"),
    };
    if request.get(field).is_none() || request.get(other).is_some() {
        let message = format!("the operation {field} goes with the field {field} alone");
        return Err(Violation::new("ProcessModifyRequest", message).into());
    }
    if field == "ConsoleSize" && !process.has_console {
        return Err(Failure::new(hresult::INVALID_STATE, "the process has no console"));
    }
    Ok(request)
}

fn windows(parameters: &Value) -> Result<Launch, Failure> {
    let wrong = |what: &str| Failure::from(Violation::new("ProcessParameters", what));
    let line = text(parameters, "CommandLine").filter(|line| !line.trim().is_empty());
    let line = line.ok_or_else(|| wrong("there is no command line"))?;
    if parameters.get("CommandArgs").is_some() {
        return Err(wrong("arguments are for Linux"));
    }
    let console = flag(parameters, "EmulateConsole");
    if console && flag(parameters, "CreateStdErrPipe") {
        return Err(wrong("a console has no standard error"));
    }
    Ok(Launch {
        program: Program::Windows(line.to_owned()),
        directory: text(parameters, "WorkingDirectory").map(str::to_owned),
        environment: parameters["Environment"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
        pipes: pipes(parameters),
        console,
        is_init: false,
    })
}

fn linux(system: &System, parameters: &Value) -> Result<Launch, Failure> {
    let own = &system.document["HostedSystem"]["OciSpecification"]["process"];
    let exec = parameters.get("OciProcess");
    let is_init = exec.is_none() && !system.is_machine();
    if is_init && system.processes.values().any(|process| process.is_init) {
        let message = format!("the system {} has its first process already", system.id);
        return Err(Failure::new(hresult::INVALID_STATE, message));
    }
    let process = exec.unwrap_or(own);
    let arguments = process["args"].as_array().or_else(|| parameters["CommandArgs"].as_array());
    let arguments: Vec<String> =
        arguments.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let Some(command) = arguments.first() else {
        let violation = Violation::new("LinuxProcessParameters", "there are no arguments");
        return Err(violation.into());
    };
    if !guest::knows(command) {
        let message = format!("exec {command}: there is no such program in the guest");
        return Err(Failure::new(hresult::FILE_NOT_FOUND, message));
    }
    if let Some(exec) = exec {
        // The guest takes an OCI process; its `cwd` is the one field that it can't do without.
        if !text(exec, "cwd").is_some_and(|directory| directory.starts_with('/')) {
            let violation = Violation::new("OciProcess", "cwd is not an absolute path");
            return Err(violation.into());
        }
    }
    let environment = process["env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut environment: Vec<(String, String)> = environment
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if system.is_machine() {
        // The machine's own processes find its disks.
        let disks = serde_json::to_string(&system.guest_disks()).unwrap_or_default();
        environment.push((guest::DISKS.to_owned(), disks));
    }
    Ok(Launch {
        program: Program::Linux(arguments),
        directory: None,
        environment,
        pipes: pipes(parameters),
        console: process["terminal"] == true || flag(parameters, "EmulateConsole"),
        is_init,
    })
}

fn flag(document: &Value, field: &str) -> bool {
    document[field] == true
}

fn pipes(parameters: &Value) -> [bool; 3] {
    ["CreateStdInPipe", "CreateStdOutPipe", "CreateStdErrPipe"].map(|name| flag(parameters, name))
}

/// A command line's program, and the rest as it is.
pub fn program_of(line: &str) -> (&str, &str) {
    let line = line.trim_start();
    match line.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
        None => line.split_once([' ', '\t']).unwrap_or((line, "")),
    }
}
