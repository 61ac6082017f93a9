//! A stand-in for the guest agent, for tests of the VM shim: it answers the protocol, but its
//! "containers" are plain processes with another root directory. With `fake=…` on the kernel
//! command line it misbehaves.
//!
//! Build it statically and pack it as `/init` of an initramfs, with kernel modules as
//! `/modules/<two digits>-<name>.ko`, loaded in that order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use oci_spec::runtime::Process;
use runhcs_compute::{ContainerId, ExitStatus, Status};
use runhcs_protocol::guest::{Envelope, Failure, Hello, ProcessKey, Reply, Request};
use runhcs_protocol::stream::{self, Open, Opened, Stream};
use runhcs_protocol::{CONTROL_PORT, GUEST_SHARE, SHARE_TAG, STREAM_PORT, VERSION, frame};

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[derive(Default)]
struct State {
    containers: Mutex<HashMap<ContainerId, Container>>,
    tasks: Mutex<HashMap<ProcessKey, Arc<Task>>>,
}

struct Container {
    root: std::path::PathBuf,
    status: Status,
}

/// A process, running or to be run.
struct Task {
    command: Mutex<Option<Command>>,
    child: Mutex<Option<u32>>,
    streams: Mutex<HashMap<Stream, OwnedFd>>,
    status: Mutex<Option<ExitStatus>>,
    ended: Condvar,
}

impl Task {
    fn new(root: &std::path::Path, process: &Process) -> Result<Self, Failed> {
        let args = process.args().as_ref().ok_or("no args")?;
        let (stdin, to_stdin) = io::pipe()?;
        let (from_stdout, stdout) = io::pipe()?;
        let (from_stderr, stderr) = io::pipe()?;
        let mut command = Command::new(&args[0]);
        command.args(&args[1..]).stdin(stdin).stdout(stdout).stderr(stderr);
        let root = std::ffi::CString::new(root.as_os_str().as_encoded_bytes())?;
        // SAFETY: system calls only.
        unsafe {
            command.pre_exec(move || {
                rustix::process::chroot(root.as_c_str())?;
                rustix::process::chdir("/")?;
                Ok(())
            });
        }
        let streams = HashMap::from([
            (Stream::Stdin, to_stdin.into()),
            (Stream::Stdout, from_stdout.into()),
            (Stream::Stderr, from_stderr.into()),
        ]);
        Ok(Self {
            command: Mutex::new(Some(command)),
            child: Mutex::new(None),
            streams: Mutex::new(streams),
            status: Mutex::new(None),
            ended: Condvar::new(),
        })
    }

    fn start(self: &Arc<Self>) -> Result<u32, Failed> {
        let mut command = self.command.lock().unwrap().take().ok_or("started already")?;
        let child: Child = command.spawn()?;
        let pid = child.id();
        *self.child.lock().unwrap() = Some(pid);
        let task = self.clone();
        thread::spawn(move || {
            let mut child = child;
            let status = child.wait().unwrap();
            let status = match (status.code(), status.signal()) {
                (Some(code), _) => ExitStatus::Exited(code as u8),
                (None, signal) => ExitStatus::Signaled(signal.unwrap_or(0) as u8),
            };
            task.finish(status);
        });
        Ok(pid)
    }

    fn finish(&self, status: ExitStatus) {
        self.status.lock().unwrap().get_or_insert(status);
        self.ended.notify_all();
    }

    fn wait(&self) -> ExitStatus {
        let mut status = self.status.lock().unwrap();
        loop {
            if let Some(status) = *status {
                return status;
            }
            status = self.ended.wait(status).unwrap();
        }
    }

    fn signal(&self, number: u8) {
        match *self.child.lock().unwrap() {
            // SAFETY: a plain system call.
            Some(pid) => drop(unsafe { libc::kill(pid as i32, number.into()) }),
            None => {
                self.command.lock().unwrap().take();
                self.finish(ExitStatus::Signaled(number));
            }
        }
    }
}

impl State {
    fn task(&self, key: &ProcessKey) -> Result<Arc<Task>, Failure> {
        self.tasks.lock().unwrap().get(key).cloned().ok_or(Failure::NotFound)
    }

    fn handle(&self, request: Request) -> Result<Reply, Failed> {
        match request {
            Request::CreateContainer(create) => {
                let spec = create.spec;
                let root = spec.root().as_ref().ok_or("no root")?.path().clone();
                let process = spec.process().as_ref().ok_or("no process")?;
                if process.args().as_ref().is_some_and(|args| args[0] == "fail") {
                    return Err("it was told to fail".into());
                }
                for mount in spec.mounts().iter().flatten() {
                    if mount.typ().as_deref() == Some("bind") {
                        let target = root.join(mount.destination().strip_prefix("/")?);
                        bind(mount.source().as_ref().ok_or("no source")?, &target)?;
                    }
                }
                let key = ProcessKey { container: create.id.clone(), exec: None };
                let task = Arc::new(Task::new(&root, process)?);
                self.tasks.lock().unwrap().insert(key, task);
                let container = Container { root, status: Status::Created };
                self.containers.lock().unwrap().insert(create.id, container);
                Ok(Reply::Process { exec: None, pid: 1000 })
            }
            Request::StartContainer(id) => {
                let key = ProcessKey { container: id.clone(), exec: None };
                self.task(&key)?.start()?;
                if let Some(container) = self.containers.lock().unwrap().get_mut(&id) {
                    container.status = Status::Running;
                }
                Ok(Reply::Done)
            }
            Request::CreateProcess(create) => {
                let containers = self.containers.lock().unwrap();
                let root = &containers.get(&create.container).ok_or(Failure::NotFound)?.root;
                let task = Arc::new(Task::new(root, &create.process)?);
                let pid = task.start()?;
                let exec = Some(u64::from(pid));
                let key = ProcessKey { container: create.container, exec };
                self.tasks.lock().unwrap().insert(key, task);
                Ok(Reply::Process { exec, pid })
            }
            Request::WaitProcess(key) => Ok(Reply::Exited(self.task(&key)?.wait())),
            Request::SignalProcess { process, signal, .. } => {
                let task = self.task(&process)?;
                if task.status.lock().unwrap().is_some() {
                    return Err(Failure::InvalidStatus(Status::Stopped).into());
                }
                task.signal(signal.number());
                Ok(Reply::Done)
            }
            Request::ContainerStatus(id) => {
                let containers = self.containers.lock().unwrap();
                let status = containers.get(&id).ok_or(Failure::NotFound)?.status;
                let task = self.task(&ProcessKey { container: id, exec: None })?;
                let ended = task.status.lock().unwrap().is_some();
                Ok(Reply::Status(if ended { Status::Stopped } else { status }))
            }
            Request::DeleteContainer(id) => {
                let key = ProcessKey { container: id.clone(), exec: None };
                if let Some(task) = self.tasks.lock().unwrap().remove(&key) {
                    task.signal(9);
                }
                self.containers.lock().unwrap().remove(&id);
                Ok(Reply::Done)
            }
            Request::DeleteProcess(key) => {
                self.tasks.lock().unwrap().remove(&key);
                Ok(Reply::Done)
            }
            Request::ResizeTerminal { .. } => Err("there are no terminals here".into()),
            Request::ListProcesses(_) => Ok(Reply::Processes(vec![1000])),
            // Stands for anything that takes long.
            Request::PauseContainer(_) => {
                thread::sleep(std::time::Duration::from_secs(5));
                Ok(Reply::Done)
            }
            // Stands for a guest that hangs.
            Request::ResumeContainer(_) => loop {
                thread::park();
            },
            Request::Sync => Ok(Reply::Done),
        }
    }
}

fn bind(source: &std::path::Path, target: &std::path::Path) -> Result<(), Failed> {
    if source.is_dir() {
        std::fs::create_dir_all(target)?;
    } else {
        File::create(target)?;
    }
    rustix::mount::mount_bind(source, target)?;
    Ok(())
}

/// Carries one stream.
fn carry(mut socket: File, state: &State) -> Result<(), Failed> {
    let Some(open) = frame::read::<Open>(&mut socket, 4096)? else { return Ok(()) };
    let stream = state.task(&open.process).and_then(|task| {
        task.streams.lock().unwrap().remove(&open.stream).ok_or(Failure::NotFound)
    });
    let opened: Opened = stream.as_ref().map(drop).map_err(Clone::clone);
    frame::write(&mut socket, &opened)?;
    let mut pipe = File::from(stream?);
    let mut chunk = vec![0; 60_000];
    if open.stream == Stream::Stdin {
        while stream::read_chunk(&mut socket, &mut chunk)? {
            pipe.write_all(&chunk)?;
        }
        return Ok(());
    }
    loop {
        let length = pipe.read(&mut chunk)?;
        if length == 0 {
            return Ok(stream::write_end(&mut socket)?);
        }
        stream::write_data(&mut socket, &chunk[..length])?;
    }
}

/// A vsock socket, connected to the host or listening.
fn vsock(port: u32, listen: bool) -> io::Result<OwnedFd> {
    // SAFETY: plain system calls on a descriptor and an address of our own.
    unsafe {
        let fd = libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_vm = std::mem::zeroed();
        address.svm_family = libc::AF_VSOCK as u16;
        address.svm_port = port;
        address.svm_cid = if listen { libc::VMADDR_CID_ANY } else { libc::VMADDR_CID_HOST };
        let size = size_of::<libc::sockaddr_vm>() as u32;
        let address = (&raw const address).cast();
        let result = if listen {
            libc::bind(fd.as_raw_fd(), address, size) | libc::listen(fd.as_raw_fd(), 64)
        } else {
            libc::connect(fd.as_raw_fd(), address, size)
        };
        if result == 0 { Ok(fd) } else { Err(io::Error::last_os_error()) }
    }
}

fn boot() -> Result<String, Failed> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        std::fs::create_dir_all(target)?;
        rustix::mount::mount(kind, target, kind, rustix::mount::MountFlags::empty(), None)?;
    }
    let mut modules: Vec<_> = std::fs::read_dir("/modules")?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    modules.sort();
    for module in modules {
        let file = File::open(&module)?;
        // SAFETY: a plain system call with an empty parameter string.
        let result = unsafe {
            libc::syscall(libc::SYS_finit_module, file.as_fd().as_raw_fd(), c"".as_ptr(), 0)
        };
        if result != 0 {
            eprintln!("fake agent: {}: {}", module.display(), io::Error::last_os_error());
        }
    }
    std::fs::create_dir_all(GUEST_SHARE)?;
    rustix::mount::mount(
        SHARE_TAG,
        GUEST_SHARE,
        "virtiofs",
        rustix::mount::MountFlags::empty(),
        None,
    )?;
    let line = std::fs::read_to_string("/proc/cmdline")?;
    Ok(line.split_whitespace().find_map(|w| w.strip_prefix("fake=")).unwrap_or("").to_owned())
}

fn serve(behaviour: &str) -> Result<(), Failed> {
    let state = Arc::new(State::default());
    let listener = vsock(STREAM_PORT, true)?;
    let streams = state.clone();
    thread::spawn(move || {
        loop {
            // SAFETY: a plain system call; the result is checked and owned.
            let socket = unsafe {
                let fd =
                    libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut());
                if fd < 0 {
                    return;
                }
                File::from_raw_fd(fd)
            };
            let state = streams.clone();
            thread::spawn(move || {
                if let Err(error) = carry(socket, &state) {
                    eprintln!("fake agent: a stream: {error}");
                }
            });
        }
    });
    if behaviour == "silent" {
        thread::sleep(std::time::Duration::from_secs(1000));
    }
    let mut control = File::from(vsock(CONTROL_PORT, false)?);
    if vsock(CONTROL_PORT, false).is_ok() {
        return Err("the host accepted a second control connection".into());
    }
    if behaviour == "half-hello" {
        control.write_all(&[0, 0, 0, 99, b'{'])?;
        return Ok(());
    }
    let version = if behaviour == "wrong-version" { VERSION + 1 } else { VERSION };
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    frame::write(&mut control, &Hello { version, kernel })?;
    let writer = Arc::new(Mutex::new(control.try_clone()?));
    while let Some(Envelope { id, body }) = frame::read(&mut control, frame::MAX_REQUEST)? {
        if let Request::ContainerStatus(id) = &body
            && id.as_str() == "close-the-link"
        {
            return Ok(());
        }
        let (state, writer) = (state.clone(), writer.clone());
        thread::spawn(move || {
            let body = state.handle(body).unwrap_or_else(|error| {
                Reply::Failed(match error.downcast::<Failure>() {
                    Ok(failure) => *failure,
                    Err(error) => Failure::Other(vec![error.to_string()]),
                })
            });
            frame::write(&mut *writer.lock().unwrap(), &Envelope { id, body }).unwrap();
        });
    }
    Ok(())
}

fn main() {
    let result = boot().and_then(|behaviour| match behaviour.as_str() {
        "panic" => std::process::exit(3),
        behaviour => serve(behaviour),
    });
    if let Err(error) = result {
        eprintln!("fake agent: {error}");
    }
    // Without its agent the VM is of no use; but the test is about what the shim makes of it.
    loop {
        thread::park();
    }
}
