//! The container shim: the process on this host that stands for a process in a VM. Its pid is in
//! the pid file, it carries stdio and signals, and it ends with the process's exit code.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use runhcs_compute::{ContainerId, Error};
use runhcs_protocol::guest::ProcessKey;
use runhcs_protocol::shim::VmEnd;
use runhcs_uvm::{Ended, LeftBehind, LocalStdio, Vm};

use super::cli::ShimArgs;
use super::terminal;
use crate::globals::Globals;
use crate::logging;

/// What a shim writes when it has attached to its process; anything else is its error.
const READY: &[u8] = b"\0OK\0";

/// The exit code of a process that was lost with its VM: that of one that was killed.
const KILLED: u8 = 137;

/// How long a VM that is lost may take to end.
const ENDING: Duration = Duration::from_secs(1);

/// What a shim is to stand for.
#[derive(Debug)]
pub struct Target {
    /// The VM's directory.
    pub vm: PathBuf,
    /// The container that owns the VM.
    pub host: ContainerId,
    /// The container.
    pub id: ContainerId,
    /// The number of the exec'd process, if it is one.
    pub exec: Option<u64>,
    /// Where to send the terminal's master, if it has one.
    pub console_socket: Option<PathBuf>,
    /// The network namespace that it is to be in, so that who looks for the container's by its pid
    /// finds the pod's; `None` for a new one.
    pub network: Option<PathBuf>,
}

/// Starts a shim with this process's stdio, waits until it has attached to its process, and returns
/// its pid. It stays a child, to be waited for by who wants its exit code.
pub fn launch(globals: &Globals, target: &Target, log: Option<&PathBuf>) -> Result<u32> {
    let program = crate::sys::own_program::path()?;
    let (mut verdict, ready) = std::io::pipe().context("make a pipe")?;
    let ready: OwnedFd = ready.into();
    let mut command = Command::new(program);
    command.args(globals.log_arguments(log)).arg("shim");
    command.arg("--vm").arg(&target.vm).arg("--host").arg(target.host.as_str());
    command.arg("--id").arg(target.id.as_str());
    if let Some(exec) = target.exec {
        command.arg("--exec").arg(exec.to_string());
    }
    if let Some(socket) = &target.console_socket {
        command.arg("--console-socket").arg(socket);
    }
    if let Some(network) = &target.network {
        command.arg("--network").arg(network);
    }
    command.arg("--ready-fd").arg(ready.as_raw_fd().to_string());
    let inherited = ready.as_raw_fd();
    // SAFETY: between fork and exec only fcntl(2) is called, on a descriptor that stays open.
    unsafe {
        command.pre_exec(move || {
            let fd = std::os::fd::BorrowedFd::borrow_raw(inherited);
            Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?)
        });
    }
    let mut child = command.spawn().context("start the container shim")?;
    drop(ready);
    let mut text = Vec::new();
    let heard = verdict.read_to_end(&mut text).context("hear from the container shim");
    if heard.is_ok() && text == READY {
        return Ok(child.id());
    }
    let _ = child.kill();
    let _ = child.wait();
    heard?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if text.is_empty() {
        bail!("the container shim ended without a word");
    }
    bail!("start the container shim: {text}")
}

/// Kills a shim that is this process's child.
pub fn kill(pid: u32) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(pid as i32).context("no pid")?;
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    Ok(())
}

/// What the hidden verb `shim` does.
pub fn run(_globals: &Globals, args: &ShimArgs) -> Result<u8> {
    logging::about_vm(&args.host);
    // SAFETY: the launching process passed this descriptor for this process alone to own.
    let mut ready = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(args.ready_fd) });
    rustix::io::fcntl_setfd(&ready, rustix::io::FdFlags::CLOEXEC).context("take the ready pipe")?;
    let attached = attach(args);
    let (attachment, terminal) = match attached {
        Ok(attached) => attached,
        Err(error) => {
            let _ = ready.write_all(format!("{error:#}").as_bytes());
            return Err(error);
        }
    };
    if terminal.is_some() {
        // As a container's process with a terminal leaves them: a caller that reads what `create`
        // prints waits for their end.
        give_stdio_up()?;
    }
    ready.write_all(READY).context("report that the shim is ready")?;
    drop(ready);
    tracing::info!(exec = args.exec, "stands for the process in the VM");
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let stdio = match &terminal {
        Some(slave) => LocalStdio::Terminal(slave.as_fd()),
        None => LocalStdio::Pipes {
            stdin: stdin.as_fd(),
            stdout: stdout.as_fd(),
            stderr: stderr.as_fd(),
        },
    };
    match attachment.run(stdio) {
        Ok(Ended { status, left_behind }) => {
            tracing::info!(exec = args.exec, code = status.code(), "the process has ended");
            if let Some(left_behind) = left_behind {
                carry_on(left_behind)?;
            }
            Ok(status.code())
        }
        Err(error) => {
            let what = match vm_end(&Vm::at(&args.vm), &error) {
                Some(VmEnd::ShutDown) => {
                    tracing::info!(exec = args.exec, "the process has ended with its VM");
                    return Ok(KILLED);
                }
                Some(VmEnd::Lost(reason)) => {
                    format!("container {} was lost with its virtual machine: {reason}", args.id)
                }
                None => format!("{:#}", anyhow::Error::from(error)),
            };
            tracing::error!("{what}");
            tell(terminal.as_ref(), &what);
            Ok(KILLED)
        }
    }
}

/// Leaves the output of what the process has left behind to a process of its own, so that this one
/// can end as its process has. It ends when nobody in the guest has the output open any more.
fn carry_on(left_behind: LeftBehind<'_>) -> Result<()> {
    // SAFETY: this process has one thread, so the child can do what the parent could.
    match unsafe { nix::unistd::fork() }.context("start a process for output that goes on")? {
        nix::unistd::ForkResult::Parent { .. } => Ok(()),
        nix::unistd::ForkResult::Child => {
            let outcome = let_go_of_stdio(&left_behind).and_then(|()| Ok(left_behind.carry()?));
            if let Err(error) = &outcome {
                tracing::error!("{error:#}: output of what a process has left behind is lost");
            }
            // Nothing of the parent's is to be undone or flushed twice.
            // SAFETY: _exit(2) has no preconditions.
            unsafe { nix::libc::_exit(outcome.is_err().into()) }
        }
    }
}

/// Keeps of standard input, output and error only what output goes on to, so that whoever is at the
/// other end of the rest sees it end.
fn let_go_of_stdio(left_behind: &LeftBehind<'_>) -> Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.context("open /dev/null")?;
    let needed: Vec<i32> = left_behind.borrowed().map(|fd| fd.as_raw_fd()).collect();
    let what = "let go of standard input and output";
    if !needed.contains(&0) {
        rustix::stdio::dup2_stdin(&null).context(what)?;
    }
    if !needed.contains(&1) {
        rustix::stdio::dup2_stdout(&null).context(what)?;
    }
    if !needed.contains(&2) {
        rustix::stdio::dup2_stderr(&null).context(what)?;
    }
    Ok(())
}

/// How the VM has ended, if its shim can't have said so any more.
fn vm_end(vm: &Vm, error: &Error) -> Option<VmEnd> {
    let disconnected =
        matches!(error, Error::Failed { source, .. } if source.is::<std::io::Error>());
    if !disconnected {
        return None;
    }
    // Its connections can close a moment before its lock.
    let until = Instant::now() + ENDING;
    loop {
        let end = vm.ended();
        if end.is_some() || Instant::now() > until {
            return end;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Tells whoever sees the process's output why there will be no more of it.
fn tell(terminal: Option<&OwnedFd>, what: &str) {
    let text = format!("runhcs: {what}\n");
    // Nobody may be there to hear it.
    let _ = match terminal {
        Some(terminal) => rustix::io::write(terminal, text.replace('\n', "\r\n").as_bytes()),
        None => rustix::io::write(rustix::stdio::stderr(), text.as_bytes()),
    };
}

fn give_stdio_up() -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let null = options.read(true).write(true).open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&null))
        .context("give the caller's stdio up")
}

fn attach(args: &ShimArgs) -> Result<(runhcs_uvm::Attachment, Option<OwnedFd>)> {
    // Signals for the caller's terminal are not for the container.
    rustix::process::setsid().context("start a session")?;
    crate::sys::pod_network::enter(args.network.network.as_deref())?;
    let key = ProcessKey { container: args.id.clone(), exec: args.exec };
    let attachment = Vm::at(&args.vm).attach(&key)?;
    if !attachment.terminal() {
        return Ok((attachment, None));
    }
    let Some(socket) = &args.console_socket else {
        bail!("{key} has a terminal, but there is no console socket to send it to");
    };
    Ok((attachment, Some(terminal::own_pty(socket)?)))
}
