//! The container shim: the process on this host that stands for a container's process. Its pid is
//! in the pid file, it carries stdio, and it ends with the process's exit code. While it lives it
//! keeps the container's compute system open.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::windows::io::AsHandle;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::Process as Document;
use runhcs_compute::ContainerId;
use runhcs_hcs::Kind;
use runhcs_hcs::documents::{linux_process, windows_process};
use runhcs_hcs::schema::ProcessParameters;
use runhcs_hcs::service::{Process, Stdio, System};
use runhcs_state::{Entry, ProcessHandle};
use serde::{Deserialize, Serialize};

use super::cli::ShimArgs;
use super::pipe::{self, Connection, Listener};
use super::process::{Child, Launch};
use super::{foreground, stdio, verdict};
use crate::existing::config;
use crate::globals::Globals;

/// The exit code of a shim whose process was lost or never started.
const LOST: u32 = 255;
/// How long a container may take to shut down once its process has ended.
const SHUTDOWN: Duration = Duration::from_secs(300);
/// How long to listen for what is left in a pipe whose process has ended: another one may have it.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the end of a process may still be told once its container has ended.
const GRACE: Duration = Duration::from_secs(10);
/// How long `start` may wait for the process to be started.
const START: Duration = Duration::from_secs(240);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// What a shim is to stand for.
pub struct Target<'a> {
    /// The container.
    pub id: &'a ContainerId,
    /// The further process; `None` for the container's own.
    pub exec: Option<&'a Document>,
}

/// A further process: its number in the guest, by its shim.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Further {
    /// The shim.
    pub process: ProcessHandle,
    /// Its pid in the guest.
    pub guest_pid: u32,
}

impl Further {
    /// The name of the value of a shim.
    pub fn name(pid: u32) -> String {
        format!("pid-{pid}")
    }
}

/// What a shim answers to `start`.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// The process's pid in the guest.
    Started(u32),
    /// Why it couldn't be started.
    Failed(String),
}

/// Starts a shim with this process's stdio and waits for its verdict.
pub fn launch(globals: &Globals, target: &Target<'_>, log: Option<&PathBuf>) -> Result<Child> {
    let own = stdio::Own::copy().context("pass the standard handles on")?;
    let (said, verdict) = io::pipe().context("make a pipe")?;
    let (input, mut document) = io::pipe().context("make a pipe")?;
    let mut arguments = globals.shim_arguments(log)?;
    arguments.extend(["shim", "--id", target.id.as_str()].map(str::to_owned));
    if target.exec.is_some() {
        arguments.push("--exec".to_owned());
    }
    arguments.extend(own.arguments());
    let child = Launch {
        arguments,
        stdin: Some(input.as_handle()),
        output: Some(verdict.as_handle()),
        passed: own.handles(),
        keeps_console: own.is_console(),
    }
    .spawn()?;
    // What the shim has, this process must not have, or it would never see its end.
    drop((input, verdict, own));
    let told = match target.exec {
        Some(process) => serde_json::to_writer(&mut document, process).context("tell the shim"),
        None => Ok(()),
    };
    drop(document);
    // If it can't be told, its verdict says why.
    let shim = verdict::judge(child, said, "container shim", "--shim-log")?;
    if let Err(error) = told {
        shim.end(Duration::ZERO)?;
        return Err(error);
    }
    Ok(shim)
}

/// Has a container's shim start the container's process, and returns its pid in the guest.
pub fn start(unique_id: &str) -> Result<u32> {
    let what = "ask the container shim to start the process";
    let connection = Connection::connect(&pipe::of_container(unique_id), CONNECT).context(what)?;
    connection.send(b"start", CONNECT).context(what)?;
    let answer = connection.receive(Some(START)).context(what)?;
    if answer.is_empty() {
        bail!("the container shim ended while it started the process");
    }
    match serde_json::from_slice(&answer).context("understand the container shim")? {
        Answer::Started(pid) => Ok(pid),
        Answer::Failed(reason) => bail!("{reason}"),
    }
}

/// What the hidden verb `shim` does. It doesn't return: an exit code has 32 bits.
pub fn run(globals: &Globals, args: &ShimArgs) -> Result<u8> {
    foreground::leave_events();
    let reporter = verdict::Reporter::take()?;
    let streams = Streams::take(args);
    let code = if args.exec {
        let started = start_further(globals, args);
        reporter.report(&started)?;
        let (system, process, pipes) = started?;
        let code = carry(&Arc::new(system), &Arc::new(process), pipes, streams);
        if let Err(error) = forget_further(globals, &args.id) {
            // The container may be gone with its entry.
            tracing::debug!("{error:#}");
        }
        code
    } else {
        let ready = Init::prepare(globals, args);
        reporter.report(&ready)?;
        ready?.serve(streams)
    };
    std::process::exit(code as i32)
}

fn parameters(
    spec: &oci_spec::runtime::Spec,
    exec: Option<&Document>,
) -> Result<ProcessParameters> {
    let own = spec.process().as_ref();
    Ok(match (spec.linux().is_some(), own, exec) {
        (true, _, Some(exec)) => linux_process(exec, Some(exec))?,
        (true, Some(own), None) => linux_process(own, None)?,
        (false, _, Some(exec)) => windows_process(exec, "process")?,
        (false, Some(own), None) => windows_process(own, "process")?,
        (_, None, None) => bail!("process: missing"),
    })
}

/// Starts a further process and records its pid in the guest.
fn start_further(globals: &Globals, args: &ShimArgs) -> Result<(System, Process, Stdio)> {
    let document: Document =
        serde_json::from_reader(io::stdin().lock()).context("read the process")?;
    let entry = globals.store.entry(&args.id)?;
    let parameters = parameters(&config(&entry)?, Some(&document))?;
    let system = System::open(args.id.as_str())?;
    let (process, pipes) = system.create_process(&parameters)?;
    if let Err(error) = record_further(entry, process.pid()) {
        let _ = process.terminate();
        return Err(error);
    }
    Ok((system, process, pipes))
}

fn record_further(entry: Entry, guest_pid: u32) -> Result<()> {
    let further = Further { process: ProcessHandle::current()?, guest_pid };
    Ok(entry.lock()?.put(&Further::name(std::process::id()), &further)?)
}

fn forget_further(globals: &Globals, id: &ContainerId) -> Result<()> {
    let entry = globals.store.entry(id)?.lock()?;
    Ok(entry.erase(&Further::name(std::process::id()))?)
}

/// The shim of a container's own process, before it is started.
struct Init {
    system: Arc<System>,
    listener: Listener,
    /// `None` for a container without a process: starting it is all there is to do.
    parameters: Option<ProcessParameters>,
}

impl Init {
    fn prepare(globals: &Globals, args: &ShimArgs) -> Result<Self> {
        let entry = globals.store.entry(&args.id)?;
        let record = entry.record()?;
        let spec = config(&entry)?;
        let parameters = spec.process().is_some().then(|| parameters(&spec, None)).transpose()?;
        let system = Arc::new(System::open(args.id.as_str())?);
        let listener =
            Listener::bind(&pipe::of_container(&record.unique_id)).context("listen for `start`")?;
        Ok(Self { system, listener, parameters })
    }

    /// Waits for `start`, then stands for the process, and returns its exit code.
    fn serve(mut self, streams: Streams) -> u32 {
        let Some(parameters) = self.parameters else {
            return ended(&self.system);
        };
        // A container that ends before it was started, or is deleted, takes its shim with it.
        let watched = Arc::clone(&self.system);
        let (started, wait) = channel::<()>();
        thread::spawn(move || {
            let _ = watched.wait(Duration::MAX);
            if let Err(RecvTimeoutError::Timeout) = wait.recv_timeout(Duration::ZERO) {
                tracing::info!("the container ended before it was started");
                std::process::exit(LOST as i32);
            }
        });
        let connection = loop {
            match asked(&mut self.listener) {
                Ok(connection) => break connection,
                Err(error) => tracing::warn!("{error:#}"),
            }
        };
        // Nobody can ask again.
        drop(self.listener);
        let outcome = self.system.create_process(&parameters);
        let answer = match &outcome {
            Ok((process, _)) => Answer::Started(process.pid()),
            Err(failure) => Answer::Failed(failure.to_string()),
        };
        let _ = started.send(());
        let answer = serde_json::to_vec(&answer).expect("an answer is JSON");
        if let Err(error) = connection.send(&answer, CONNECT) {
            tracing::warn!("answer `start`: {error}");
        }
        let code = match outcome {
            Ok((process, pipes)) => carry(&self.system, &Arc::new(process), pipes, streams),
            Err(failure) => {
                tracing::error!("{failure}");
                LOST
            }
        };
        shut_down(&self.system);
        code
    }
}

/// Waits until `start` asks.
fn asked(listener: &mut Listener) -> Result<Connection> {
    let connection = listener.accept().context("wait for `start`")?;
    let request = connection.receive(Some(CONNECT)).context("hear from `start`")?;
    if request != b"start" {
        bail!("an unknown request: {}", String::from_utf8_lossy(&request));
    }
    Ok(connection)
}

/// The exit code of a container that has no process.
fn ended(system: &System) -> u32 {
    match system.wait(Duration::MAX) {
        Ok(_) => 0,
        Err(failure) => {
            tracing::error!("{failure}");
            LOST
        }
    }
}

/// Has a container shut down, unless it has ended by itself, and ends it if it doesn't.
fn shut_down(system: &System) {
    let ended = match system.shut_down() {
        Err(failure) if failure.kind == Kind::AlreadyStopped => return,
        asked => asked.and_then(|()| system.wait(SHUTDOWN)),
    };
    if !matches!(ended, Ok(Some(_)))
        && let Err(failure) = system.terminate()
    {
        tracing::warn!("{failure}");
    }
}

/// The caller's stdio, as far as it gave one.
struct Streams {
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
}

impl Streams {
    fn take(args: &ShimArgs) -> Self {
        // SAFETY: whoever started this shim passed the handles for it alone.
        let take = |number: Option<usize>| number.map(|number| unsafe { stdio::inherited(number) });
        Self { stdin: take(args.stdin), stdout: take(args.stdout), stderr: take(args.stderr) }
    }
}

/// Carries data between the caller and the process until that has ended, and returns its exit
/// code.
fn carry(system: &Arc<System>, process: &Arc<Process>, pipes: Stdio, streams: Streams) -> u32 {
    if let Some(to) = pipes.stdin {
        let process = Arc::clone(process);
        // It may wait for the caller for ever, and ends with this process.
        thread::spawn(move || {
            copy(streams.stdin, Some(to));
            // It may have ended.
            let _ = process.close_stdin();
        });
    }
    let (done, wait) = channel();
    let mut outputs = 0;
    for (from, to) in [(pipes.stdout, streams.stdout), (pipes.stderr, streams.stderr)] {
        let Some(from) = from else { continue };
        outputs += 1;
        let done = done.clone();
        thread::spawn(move || {
            copy(Some(from), to);
            let _ = done.send(());
        });
    }
    let code = exit_code(system, process);
    tracing::info!(pid = process.pid(), code, "the process has ended");
    for _ in 0..outputs {
        if wait.recv_timeout(DRAIN).is_err() {
            break;
        }
    }
    code
}

/// Waits for the end of a process, which may be lost with its container.
fn exit_code(system: &Arc<System>, process: &Arc<Process>) -> u32 {
    let (sender, code) = channel();
    let (awaited, told) = (Arc::clone(process), sender.clone());
    thread::spawn(move || {
        let code = match awaited.wait(Duration::MAX) {
            Ok(Some(code)) => code,
            Ok(None) => LOST,
            Err(failure) => {
                tracing::error!("{failure}");
                LOST
            }
        };
        let _ = told.send(code);
    });
    let system = Arc::clone(system);
    thread::spawn(move || {
        let ended = system.wait(Duration::MAX);
        thread::sleep(GRACE);
        if let Err(failure) = ended {
            tracing::warn!("{failure}");
        }
        let _ = sender.send(LOST);
    });
    code.recv().unwrap_or(LOST)
}

/// Copies until either side ends. What nobody takes is read all the same, lest the process wait.
fn copy(from: Option<File>, mut to: Option<File>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if to.as_mut().is_some_and(|to| to.write_all(&buffer[..length]).is_err()) {
                    to = None;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
