//! A VM, by its shim's directory.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use oci_spec::runtime::{Process, Spec};
use runhcs_compute::{ContainerId, Error, Result};
use runhcs_protocol::guest::{self, Failure, ProcessKey, TerminalSize};
use runhcs_protocol::shim::{CreateContainer, Disk, Info, Reply, Request, StandIn, VmEnd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::connection::{self, Answered, Failed, MAX_DESCRIPTORS};
use crate::signals::Caught;
use crate::trees::Prepare;
use crate::{Attachment, Launch, console, files, launch, trees};

/// How long a shim that was asked, or killed, may take to be gone with its VM.
const GONE_DEADLINE: Duration = Duration::from_secs(5);
/// The most of an obituary that is read, in bytes.
const MAX_OBITUARY: u64 = 16 << 10;

/// A connection point to a VM shim.
#[derive(Clone, Debug)]
pub struct Vm {
    dir: PathBuf,
}

impl Vm {
    /// Starts the VM shim `program` as a daemon, its log going to `log`, and waits until its VM
    /// serves requests; `waiting` is called every now and then meanwhile. If that fails nothing is
    /// left, and the error holds the shim's own words.
    pub fn launch(
        program: &Path,
        launch: &Launch,
        log: OwnedFd,
        waiting: &mut dyn FnMut(),
    ) -> Result<Self> {
        let vm = Self::at(&launch.dir);
        launch::launch(program, launch, log, waiting).inspect_err(|error| {
            // A shim that has said why it failed has left nothing and is about to end.
            if matches!(error, Error::Timeout { .. })
                && let Err(error) = vm.end()
            {
                tracing::warn!(%error, "the VM shim may still be running");
            }
        })?;
        Ok(vm)
    }

    /// The VM whose shim was launched with this directory. Does not connect yet.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The directory its shim was launched with.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// About the VM.
    pub fn info(&self) -> Result<Info> {
        let operation = "ask about the virtual machine";
        match self.ask(operation, &Request::Info)?.reply {
            Reply::Info(info) => Ok(info),
            reply => Err(unexpected(operation, &reply)),
        }
    }

    /// Whether the shim is alive: it holds its lock file as long as it is.
    pub fn is_alive(&self) -> Result<bool> {
        self.is_locked(files::LOCK)
    }

    /// How the VM has ended; `None` if it lives. If it is lost: what the shim said of it, or if the
    /// shim was killed, what the console said last.
    pub fn ended(&self) -> Option<VmEnd> {
        let alive = self.is_alive().ok()?;
        let mut text = Vec::new();
        let obituary = File::open(self.dir.join(files::OBITUARY))
            .and_then(|file| file.take(MAX_OBITUARY).read_to_end(&mut text));
        // It is written before anybody is told, by a shim that takes a moment more to end.
        if !text.is_empty() {
            return Some(VmEnd::Lost(String::from_utf8_lossy(&text).into_owned()));
        }
        if alive {
            return None;
        }
        if obituary.is_ok() {
            return Some(self.lost("the reason could not be written down"));
        }
        // A shim that ends by itself takes its socket away.
        if self.dir.join(files::SOCKET).symlink_metadata().is_ok() {
            return Some(self.lost("the VM shim was killed"));
        }
        Some(VmEnd::ShutDown)
    }

    fn lost(&self, reason: &str) -> VmEnd {
        let log = self.dir.join(files::CONSOLE);
        let lines = console::last_lines(&log).unwrap_or_default();
        VmEnd::Lost(reason.to_owned() + &console::excerpt(lines, &log))
    }

    fn is_locked(&self, file: &str) -> Result<bool> {
        let path = self.dir.join(file);
        let failed = |error: std::io::Error| {
            Error::failed(format!("cannot examine the lock file {}", path.display()), error)
        };
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        match flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Creates a container in the VM: opens its root file system and the sources of its bind
    /// mounts as detached mounts, has `prepare` change the latter, and hands them to the shim,
    /// with its disks. Returns the init process's pid in the guest's first pid namespace.
    pub fn create_container(
        &self,
        id: &ContainerId,
        spec: &Spec,
        disks: &[(Disk, OwnedFd)],
        prepare: &Prepare<'_>,
    ) -> Result<u32> {
        let operation = format!("create container {id} in the virtual machine");
        let trees = trees::open(spec, prepare)?;
        let count = trees.mounts.len() + disks.len();
        if count > MAX_DESCRIPTORS {
            return Err(Error::Unsupported(format!(
                "a container in a virtual machine can have {} bind mounts and disks; this one has \
                 {} and {}",
                MAX_DESCRIPTORS - 1,
                trees.binds.len(),
                disks.len()
            )));
        }
        let request = Request::CreateContainer(Box::new(CreateContainer {
            id: id.clone(),
            spec: spec.clone(),
            root_inner: trees.root_inner,
            mounts: trees.binds,
            disks: disks.iter().map(|(disk, _)| *disk).collect(),
        }));
        let files = disks.iter().map(|(_, file)| file.as_fd());
        let descriptors: Vec<_> = trees.mounts.iter().map(AsFd::as_fd).chain(files).collect();
        let answered = connection::ask(&self.dir, &request, &descriptors)
            .map_err(|error| self.error(&operation, error))?;
        match check(&operation, Some(id), answered.reply)? {
            guest::Reply::Process { exec: None, pid } => Ok(pid),
            reply => Err(unexpected(&operation, &Reply::Guest(reply))),
        }
    }

    /// Runs a further process in a container; attach to it to get at its stdio and exit status.
    pub fn create_process(&self, id: &ContainerId, process: &Process) -> Result<ProcessKey> {
        let operation = format!("run a process in container {id}");
        let request = guest::Request::CreateProcess(Box::new(guest::CreateProcess {
            container: id.clone(),
            process: process.clone(),
        }));
        match self.ask_guest(&operation, Some(id), request)? {
            guest::Reply::Process { exec: exec @ Some(_), .. } => {
                Ok(ProcessKey { container: id.clone(), exec })
            }
            reply => Err(unexpected(&operation, &Reply::Guest(reply))),
        }
    }

    /// Takes over a process's stdio. Signals that [`Attachment::run`] passes on are held back
    /// from here on, so that none is lost in between.
    pub fn attach(&self, process: &ProcessKey) -> Result<Attachment> {
        let operation = format!("attach to {process}");
        let signals =
            Caught::new().map_err(|error| Error::failed("cannot catch signals", error))?;
        let Answered { reply, descriptors, stream } =
            self.ask(&operation, &Request::Attach(process.clone()))?;
        match reply {
            Reply::Attached { terminal } => {
                Attachment::new(process.clone(), terminal, stream, descriptors, signals)
            }
            Reply::Guest(_) | Reply::Failed(_) => {
                let reply = check(&operation, Some(&process.container), reply)?;
                Err(unexpected(&operation, &Reply::Guest(reply)))
            }
            reply => Err(unexpected(&operation, &reply)),
        }
    }

    /// The processes of the host that stand for processes of a container.
    pub fn stand_ins(&self, id: &ContainerId) -> Result<Vec<StandIn>> {
        let operation = format!("ask who stands for processes of container {id}");
        match self.ask(&operation, &Request::StandIns(id.clone()))?.reply {
            Reply::StandIns(stand_ins) => Ok(stand_ins),
            reply => Err(unexpected(&operation, &reply)),
        }
    }

    /// Sets the size of a process's terminal.
    pub fn resize(&self, process: &ProcessKey, size: TerminalSize) -> Result<()> {
        let request = guest::Request::ResizeTerminal { process: process.clone(), size };
        self.done(&format!("resize the terminal of {process}"), &process.container, request)
    }

    /// Has the VM follow what was changed in its pod's network namespace.
    pub fn sync_network(&self) -> Result<()> {
        let operation = "have the virtual machine follow its network";
        let answered = self.ask(operation, &Request::SyncNetwork)?;
        match check(operation, None, answered.reply)? {
            guest::Reply::Done => Ok(()),
            reply => Err(unexpected(operation, &Reply::Guest(reply))),
        }
    }

    /// Stops the VM and waits until its shim is gone, killing it and its VM if it doesn't answer.
    /// Succeeds if there is none.
    pub fn shutdown(&self) -> Result<()> {
        match connection::ask(&self.dir, &Request::Shutdown, &[]) {
            Ok(Answered { reply: Reply::Guest(guest::Reply::Done), .. })
            | Err(Failed::NoShim | Failed::VmEnded(_)) => {}
            Ok(Answered { reply, .. }) => {
                tracing::warn!(?reply, "the VM shim refuses to shut down; killing it");
                self.kill()?;
            }
            Err(error) => {
                tracing::warn!(%error, "the VM shim doesn't shut down; killing it");
                self.kill()?;
            }
        }
        self.end()
    }

    /// Waits until a shim that is about to end is gone, and kills it if it doesn't end.
    fn end(&self) -> Result<()> {
        if self.wait_until_gone(GONE_DEADLINE)? {
            return Ok(());
        }
        self.kill()?;
        if self.wait_until_gone(GONE_DEADLINE)? {
            return Ok(());
        }
        Err(Error::Timeout {
            operation: "ending the virtual machine".to_owned(),
            seconds: GONE_DEADLINE.as_secs(),
        })
    }

    /// Waits until neither the shim nor a process of its VM is left.
    fn wait_until_gone(&self, limit: Duration) -> Result<bool> {
        let until = Instant::now() + limit;
        if let Some(shim) = self.shim()? {
            let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: 0 };
            // Whether it is gone is seen below.
            let _ = poll(&mut [PollFd::new(&shim, PollFlags::IN)], Some(&timeout));
        }
        // QEMU and the daemons are killed when the shim ends; that takes them some milliseconds.
        while self.is_alive()? || self.is_locked(files::LIFE)? {
            if Instant::now() > until {
                return Ok(false);
            }
            sleep(Duration::from_millis(2));
        }
        Ok(true)
    }

    fn kill(&self) -> Result<()> {
        let Some(shim) = self.shim()? else { return Ok(()) };
        match pidfd_send_signal(&shim, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => {
                Err(Error::failed("cannot kill the VM shim", std::io::Error::from(error)))
            }
        }
    }

    /// The shim's process, if it lives.
    fn shim(&self) -> Result<Option<OwnedFd>> {
        let mut text = String::new();
        let read = File::open(self.dir.join(files::LOCK))
            .and_then(|mut lock| lock.read_to_string(&mut text));
        let Some(pid) = read.ok().and_then(|_| text.trim().parse().ok()).and_then(Pid::from_raw)
        else {
            return Ok(None);
        };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(None) };
        // Of a shim that lives, the lock file can't be naming a pid that was used again.
        Ok(self.is_alive()?.then_some(process))
    }

    fn ask(&self, operation: &str, request: &Request) -> Result<Answered> {
        connection::ask(&self.dir, request, &[]).map_err(|error| self.error(operation, error))
    }

    /// Asks the guest agent.
    pub(crate) fn ask_guest(
        &self,
        operation: &str,
        id: Option<&ContainerId>,
        request: guest::Request,
    ) -> Result<guest::Reply> {
        let answered = self.ask(operation, &Request::Guest(request))?;
        check(operation, id, answered.reply)
    }

    /// Asks the guest agent for something that has no other answer than that it is done.
    pub(crate) fn done(
        &self,
        operation: &str,
        id: &ContainerId,
        request: guest::Request,
    ) -> Result<()> {
        match self.ask_guest(operation, Some(id), request)? {
            guest::Reply::Done => Ok(()),
            reply => Err(unexpected(operation, &Reply::Guest(reply))),
        }
    }

    /// Deletes a container in the VM and stops sharing its trees. A VM that is gone has none.
    pub(crate) fn delete_container(&self, id: &ContainerId) -> Result<()> {
        let operation = format!("delete container {id} in the virtual machine");
        let request = Request::DeleteContainer(id.clone());
        match connection::ask(&self.dir, &request, &[]) {
            Err(Failed::NoShim | Failed::VmEnded(_)) => Ok(()),
            Err(error) => Err(self.error(&operation, error)),
            Ok(answered) => match check(&operation, Some(id), answered.reply) {
                Ok(guest::Reply::Done) | Err(Error::NotFound(_)) => Ok(()),
                Ok(reply) => Err(unexpected(&operation, &Reply::Guest(reply))),
                Err(error) => Err(error),
            },
        }
    }

    fn error(&self, operation: &str, error: Failed) -> Error {
        match error {
            Failed::Timeout(allowed) => Error::Timeout {
                operation: format!("the request to {operation}"),
                seconds: allowed.as_secs(),
            },
            Failed::NoShim => {
                // Better than that there is none.
                let error = match self.ended() {
                    Some(lost @ VmEnd::Lost(_)) => Failed::VmEnded(lost),
                    Some(VmEnd::ShutDown) | None => Failed::NoShim,
                };
                Error::failed(format!("cannot {operation}"), error)
            }
            error => Error::failed(format!("cannot {operation}"), error),
        }
    }
}

/// The guest agent's answer, with its failure as an error.
fn check(operation: &str, id: Option<&ContainerId>, reply: Reply) -> Result<guest::Reply> {
    let failure = match reply {
        Reply::Guest(guest::Reply::Failed(failure)) | Reply::Failed(failure) => failure,
        Reply::Guest(reply) => return Ok(reply),
        reply => return Err(unexpected(operation, &reply)),
    };
    match (failure, id) {
        (Failure::NotFound, Some(id)) => Err(Error::NotFound(id.clone())),
        (Failure::Unsupported(text), _) => Err(Error::Unsupported(text)),
        (failure, _) => Err(Error::failed(format!("cannot {operation}"), failure)),
    }
}

fn unexpected(operation: &str, reply: &Reply) -> Error {
    Error::failed(format!("cannot {operation}"), format!("the answer makes no sense: {reply:?}"))
}
