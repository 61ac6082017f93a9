//! `resize-tty`: sets the size of a process's terminal.

use anyhow::{Context, Result, bail};
use runhcs_compute::Status;
use runhcs_protocol::guest::{ProcessKey, TerminalSize};
use runhcs_uvm::VmContainer;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::cli::ResizeTtyArgs;
use crate::existing::Existing;
use crate::globals::Globals;

/// Sets the size of the terminal of a container's init process, or of another of its processes.
pub fn run(globals: &Globals, args: &ResizeTtyArgs) -> Result<u8> {
    let (_, existing) = Existing::find(&globals.store, &args.id)?;
    if existing.status()? == Status::Stopped {
        bail!("container not running: {} has stopped", args.id);
    }
    let size = TerminalSize { width: args.width, height: args.height };
    match existing.vm_container() {
        Some(container) => resize_in_vm(container, args.pid, size)?,
        None => {
            let pids = existing.require()?.processes()?;
            let main = existing.main.context("the container has no process yet")?;
            let pid = args.pid.unwrap_or(main.process.pid);
            if !pids.contains(&pid) {
                bail!("process {pid} is not in container {}", args.id);
            }
            resize(pid, size)?;
        }
    }
    Ok(0)
}

fn resize_in_vm(container: &VmContainer, pid: Option<u32>, size: TerminalSize) -> Result<()> {
    let process = match pid {
        None => ProcessKey { container: container.id.clone(), exec: None },
        Some(pid) => {
            let stand_ins = container.vm.stand_ins(&container.id)?;
            let ours = stand_ins.into_iter().find(|stand_in| stand_in.pid == pid);
            let ours = ours.with_context(|| {
                format!("process {pid} doesn't stand for one of container {}", container.id)
            })?;
            ours.process
        }
    };
    Ok(container.vm.resize(&process, size)?)
}

/// The terminal is taken from the process itself: a path in the container could be anything's.
fn resize(pid: u32, size: TerminalSize) -> Result<()> {
    let what = || format!("resize the terminal of process {pid}");
    let process = Pid::from_raw(pid.try_into()?).with_context(what)?;
    let pidfd = pidfd_open(process, PidfdFlags::empty()).with_context(what)?;
    let stdin = pidfd_getfd(&pidfd, 0, PidfdGetfdFlags::empty());
    let stdin = stdin.ok().filter(|fd| rustix::termios::isatty(fd));
    let Some(terminal) = stdin else { bail!("process {pid} has no terminal") };
    let TerminalSize { width: ws_col, height: ws_row } = size;
    let size = rustix::termios::Winsize { ws_col, ws_row, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal, size).with_context(what)
}
