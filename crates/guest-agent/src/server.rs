//! The containers of this VM and their processes.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use oci_spec::runtime::{Process as ProcessSpec, Spec};
use runhcs_compute::{ComputeSystem, ContainerId, OomNotice, Scope, Signal, Stats, Status};
use runhcs_container::{Container, CreateOptions, ExecOptions, Init, Plan, Stdio};
use runhcs_protocol::guest::{
    CreateContainer, CreateProcess, Failure, ProcessKey, TerminalSize, UpdateContainer, WaitOom,
};
use runhcs_protocol::stream::Stream;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use crate::disks::{ContainersDisks, Disks};
use crate::namespaces::{self, Joinable, Namespaces};
use crate::oom::OomLog;
use crate::reaper::{Exit, Reaper};
use crate::volumes::{Volume, Volumes};
use crate::{boot, devices, engine};

/// A process that the host can attach to.
#[derive(Debug)]
pub struct Process {
    init: Init,
    /// Tells when it has ended.
    pub exit: Exit,
    ends: RefCell<HashMap<Stream, End>>,
    terminal: Option<Rc<AsyncFd<OwnedFd>>>,
}

/// The agent's end of one of a process's streams.
#[derive(Debug)]
pub enum End {
    /// To the process's standard input.
    Input(pipe::Sender),
    /// From its standard output or error.
    Output(pipe::Receiver),
    /// Both ways.
    Terminal(Rc<AsyncFd<OwnedFd>>),
}

#[derive(Debug)]
struct Guest {
    container: Container,
    spec: Spec,
    directory: PathBuf,
    main: Rc<Process>,
    execs: RefCell<HashMap<u64, Rc<Process>>>,
    namespaces: Namespaces,
    oom: OomLog,
    /// Needed as long as the container exists, and like the volumes given back when it is deleted.
    disks: ContainersDisks,
    _volumes: Vec<Rc<Volume>>,
}

/// All of this VM.
#[derive(Debug)]
pub struct Server {
    reaper: Rc<Reaper>,
    guests: RefCell<HashMap<ContainerId, Rc<Guest>>>,
    /// Ids of containers that are being made or deleted.
    busy: RefCell<HashSet<ContainerId>>,
    numbers: Cell<u64>,
    volumes: Volumes,
    disks: Disks,
}

type Outcome<T> = Result<T, Failure>;

fn other(what: &str, error: impl std::error::Error) -> Failure {
    Failure::Other(vec![what.to_owned(), error.to_string()])
}

impl Server {
    /// None yet.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            reaper: Reaper::start()?,
            guests: RefCell::default(),
            busy: RefCell::default(),
            numbers: Cell::new(1),
            volumes: Volumes::default(),
            disks: Disks::default(),
        })
    }

    fn number(&self) -> u64 {
        let number = self.numbers.get();
        self.numbers.set(number + 1);
        number
    }

    fn guest(&self, id: &ContainerId) -> Outcome<Rc<Guest>> {
        self.guests.borrow().get(id).cloned().ok_or(Failure::NotFound)
    }

    /// A process by its key.
    pub fn process(&self, key: &ProcessKey) -> Outcome<Rc<Process>> {
        let guest = self.guest(&key.container)?;
        match key.exec {
            None => Ok(Rc::clone(&guest.main)),
            Some(exec) => guest.execs.borrow().get(&exec).cloned().ok_or(Failure::NotFound),
        }
    }

    /// Makes a container; returns its init's pid.
    pub async fn create(self: &Rc<Self>, request: CreateContainer) -> Outcome<u32> {
        let id = request.id.clone();
        let _busy = self.reserve(&id)?;
        if self.guests.borrow().contains_key(&id) {
            return Err(Failure::Other(vec![format!("container {id} exists in the VM already")]));
        }
        let directory = boot::requests_directory().join(self.number().to_string());
        std::fs::create_dir(&directory).map_err(|e| other("make the container's directory", e))?;
        let outcome = self.create_in(request, directory.clone()).await;
        if outcome.is_err() {
            // Nothing is mounted in it any more. Should that have failed, nobody's files are lost.
            let _ = remove_directory(&directory);
        }
        outcome
    }

    async fn create_in(&self, request: CreateContainer, directory: PathBuf) -> Outcome<u32> {
        let CreateContainer { id, mut spec, disks, inner_mounts } = request;
        let find = |id: &str| self.guest(&id.parse().ok()?).ok();
        namespaces::resolve(&mut spec, find, |guest| Joinable {
            namespaces: &guest.namespaces,
            ended: guest.main.exit.borrow().is_some(),
        })?;
        let terminal = spec.process().as_ref().is_some_and(|p| p.terminal() == Some(true));
        devices::load_drivers(&spec).map_err(|error| Failure::from_error(error.as_ref()))?;
        let volumes = self.volumes.of(&spec, &inner_mounts)?;
        let disks = self.disks.of(&disks, &mut spec, &directory).await?;
        let (ours, theirs) = Ends::new(terminal)?;
        let call = self.reaper.call();
        let (for_child, runtime_dir, child_spec) = (id.clone(), directory.clone(), spec.clone());
        let (resources, init) = engine::run(move || {
            let plan = Plan::new(CreateOptions {
                id: &for_child,
                spec: &child_spec,
                bundle: &runtime_dir,
                runtime_dir: &runtime_dir,
                stdio: theirs.stdio,
                console_socket: theirs.console,
                inherited_fds: runhcs_container::InheritedFds::default(),
                no_pivot: false,
                no_new_keyring: false,
                cgroup_driver: runhcs_container::CgroupDriver::Directories,
                rootless: false,
            })?;
            let resources = plan.resources().clone();
            Ok((resources, plan.create()?))
        })
        .await?;
        let main = Rc::new(ours.process(init, self.reaper.await_exit(init.pid, &call))?);
        let container = Container { resources, init: Some(init) };
        let execs = RefCell::default();
        let watched = Namespaces::of(init.pid).and_then(|namespaces| {
            let oom = OomLog::start(&container).map_err(|error| engine::failure(&error))?;
            Ok((namespaces, oom))
        });
        let (namespaces, oom) = match watched {
            Ok(watched) => watched,
            Err(failure) => {
                engine::run(move || container.delete()).await?;
                return Err(failure);
            }
        };
        let guest = Guest {
            container,
            spec,
            directory,
            main,
            execs,
            namespaces,
            oom,
            disks,
            _volumes: volumes,
        };
        self.guests.borrow_mut().insert(id, Rc::new(guest));
        Ok(init.pid)
    }

    /// Runs a further process; returns its number and pid.
    pub async fn exec(&self, request: CreateProcess) -> Outcome<(u64, u32)> {
        let guest = self.guest(&request.container)?;
        let process: ProcessSpec = request.process;
        let (ours, theirs) = Ends::new(process.terminal() == Some(true))?;
        let call = self.reaper.call();
        let for_child = Rc::clone(&guest);
        let init = engine::run(move || {
            let options = ExecOptions {
                process: &process,
                stdio: theirs.stdio,
                console_socket: theirs.console,
                inherited_fds: runhcs_container::InheritedFds::default(),
                cgroup: runhcs_container::ExecCgroup::Container,
                ignore_paused: false,
            };
            for_child.container.exec(&for_child.spec, options)
        })
        .await?;
        let process = ours.process(init, self.reaper.await_exit(init.pid, &call))?;
        let number = self.number();
        guest.execs.borrow_mut().insert(number, Rc::new(process));
        Ok((number, init.pid))
    }

    /// Releases a container's init.
    pub async fn start(&self, id: &ContainerId) -> Outcome<()> {
        let guest = self.guest(id)?;
        engine::run(move || guest.container.start()).await
    }

    /// Freezes or thaws a container.
    pub async fn freeze(&self, id: &ContainerId, frozen: bool) -> Outcome<()> {
        let guest = self.guest(id)?;
        let call = move || if frozen { guest.container.pause() } else { guest.container.resume() };
        engine::run(call).await
    }

    /// Sends a signal.
    pub async fn signal(&self, key: &ProcessKey, signal: Signal, scope: Scope) -> Outcome<()> {
        let guest = self.guest(&key.container)?;
        if let (Scope::All, None) = (scope, key.exec) {
            return engine::run(move || guest.container.signal(signal, scope)).await;
        }
        let init = self.process(key)?.init;
        let process = Container { resources: guest.container.resources.clone(), init: Some(init) };
        process.signal(signal, Scope::Init).map_err(|error| engine::failure(&error))
    }

    /// Sets a terminal's size.
    pub fn resize(&self, key: &ProcessKey, size: TerminalSize) -> Outcome<()> {
        let process = self.process(key)?;
        let Some(terminal) = &process.terminal else {
            return Err(Failure::Unsupported("the process has no terminal".into()));
        };
        let size = rustix::termios::Winsize {
            ws_row: size.height,
            ws_col: size.width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(terminal.get_ref().as_fd(), size)
            .map_err(|error| other("set the terminal's size", error))
    }

    /// What a container is doing.
    pub fn status(&self, id: &ContainerId) -> Outcome<Status> {
        self.guest(id)?.container.status().map_err(|error| engine::failure(&error))
    }

    /// Sets a container's limits.
    pub async fn update(&self, mut update: UpdateContainer) -> Outcome<()> {
        let guest = self.guest(&update.id)?;
        guest.disks.renumber(&mut update.resources)?;
        engine::run(move || guest.container.update(&update.resources)).await
    }

    /// What a container uses.
    pub async fn stats(&self, id: &ContainerId) -> Outcome<Stats> {
        let guest = self.guest(id)?;
        engine::run(move || guest.container.stats()).await
    }

    /// Waits for exhausted memory. The guest has cgroup version 2, which counts from the
    /// container's beginning, so a watch that is begun anew has missed nothing.
    pub async fn wait_oom(&self, wait: WaitOom) -> Outcome<OomNotice> {
        let guest = self.guest(&wait.id)?;
        let limit = Duration::from_millis(wait.limit);
        engine::run(move || guest.container.watch_oom()?.wait(wait.known, limit)).await
    }

    /// The pids of a container's processes.
    pub fn processes(&self, id: &ContainerId) -> Outcome<Vec<u32>> {
        self.guest(id)?.container.processes().map_err(|error| engine::failure(&error))
    }

    /// Kills what runs of a container and frees everything; fine if there is none.
    pub async fn delete(self: &Rc<Self>, id: &ContainerId) -> Outcome<()> {
        let Ok(guest) = self.guest(id) else { return Ok(()) };
        let _busy = self.reserve(id)?;
        guest.oom.catch_up();
        let container = guest.container.clone();
        engine::run(move || container.delete()).await?;
        self.guests.borrow_mut().remove(id);
        let directory = guest.directory.clone();
        // The last one, unless somebody asks something of it right now.
        drop(guest);
        remove_directory(&directory)
            .map_err(|error| other("remove the container's directory", error))
    }

    /// Forgets an exec'd process that has ended.
    pub fn forget(&self, key: &ProcessKey) -> Outcome<()> {
        let (Ok(guest), Some(exec)) = (self.guest(&key.container), key.exec) else { return Ok(()) };
        let mut execs = guest.execs.borrow_mut();
        if execs.get(&exec).is_some_and(|process| process.exit.borrow().is_none()) {
            return Err(Failure::InvalidStatus(Status::Running));
        }
        execs.remove(&exec);
        Ok(())
    }

    /// Keeps others from making or deleting the same container at the same time.
    fn reserve(self: &Rc<Self>, id: &ContainerId) -> Outcome<Busy> {
        if !self.busy.borrow_mut().insert(id.clone()) {
            return Err(Failure::Other(vec![format!("container {id} is being made or deleted")]));
        }
        Ok(Busy { server: Rc::clone(self), id: id.clone() })
    }
}

/// Removes a container's directory with what the engine and the agent have in it. What may be
/// mounted in it is not gone into.
fn remove_directory(directory: &std::path::Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let removed =
            if path.is_dir() { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) };
        removed?;
    }
    std::fs::remove_dir(directory)
}

struct Busy {
    server: Rc<Server>,
    id: ContainerId,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.server.busy.borrow_mut().remove(&self.id);
    }
}

/// The agent's ends of a process's stdio before the process exists.
struct Ends {
    pipes: HashMap<Stream, End>,
    console: Option<OwnedFd>,
}

/// The process's ends.
struct TheirEnds {
    stdio: Option<Stdio>,
    console: Option<OwnedFd>,
}

impl Ends {
    fn new(terminal: bool) -> Outcome<(Self, TheirEnds)> {
        let failed = |error: std::io::Error| other("make the process's stdio", error);
        if terminal {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
            let ours = Self { pipes: HashMap::new(), console: Some(ours.into()) };
            return Ok((ours, TheirEnds { stdio: None, console: Some(theirs.into()) }));
        }
        let pipe = || {
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                .map_err(|error| other("make a pipe", error))
        };
        let ((stdin, input), (output, stdout), (errors, stderr)) = (pipe()?, pipe()?, pipe()?);
        let pipes = HashMap::from([
            (Stream::Stdin, End::Input(pipe::Sender::from_owned_fd(input).map_err(failed)?)),
            (Stream::Stdout, End::Output(pipe::Receiver::from_owned_fd(output).map_err(failed)?)),
            (Stream::Stderr, End::Output(pipe::Receiver::from_owned_fd(errors).map_err(failed)?)),
        ]);
        let theirs = TheirEnds { stdio: Some(Stdio { stdin, stdout, stderr }), console: None };
        Ok((Self { pipes, console: None }, theirs))
    }

    /// The process that the engine has made with the other ends.
    fn process(mut self, init: Init, exit: Exit) -> Outcome<Process> {
        let terminal = match self.console.take() {
            None => None,
            Some(console) => Some(Rc::new(receive_terminal(&console)?)),
        };
        if let Some(terminal) = &terminal {
            self.pipes.insert(Stream::Terminal, End::Terminal(Rc::clone(terminal)));
        }
        Ok(Process { init, exit, ends: RefCell::new(self.pipes), terminal })
    }
}

fn receive_terminal(console: &OwnedFd) -> Outcome<AsyncFd<OwnedFd>> {
    let master = runhcs_container::receive_terminal(console).map_err(|e| engine::failure(&e))?;
    rustix::io::ioctl_fionbio(&master, true).map_err(|e| other("set up the terminal", e))?;
    // SAFETY: the descriptor is owned by the AsyncFd from here on, so it stays open and the same
    // for as long as it is registered.
    unsafe { AsyncFd::register(master) }.map_err(|e| other("watch the terminal", e))
}

impl Process {
    /// Hands out one of its streams, once.
    pub fn take(&self, stream: Stream) -> Outcome<End> {
        self.ends.borrow_mut().remove(&stream).ok_or_else(|| {
            Failure::Other(vec![format!("{stream:?} was opened already, or the process has none")])
        })
    }
}
