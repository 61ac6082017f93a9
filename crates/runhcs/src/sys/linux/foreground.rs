//! Waiting in the foreground for a child that is, or stands for, a container's process: signals
//! are passed on, and what it notifies of, and a terminal's data is copied.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, kill_process, waitpid};

use runhcs_compute::ExitStatus;

use crate::sys::notify_socket::NotifySocket;
use crate::sys::terminal::{Copier, LineEnds, Raw, copy_size};

/// Waits until the child has ended. The caller's terminal is in raw mode meanwhile if `master`,
/// the child's terminal, is given.
pub fn wait(
    pid: u32,
    master: Option<(&OwnedFd, LineEnds)>,
    notify: Option<&NotifySocket>,
) -> Result<ExitStatus> {
    let pid = Pid::from_raw(pid as i32).context("no pid")?;
    let mut mask = SigSet::all();
    // Nobody may hold these back, and those of faults must end this process as ever.
    for signal in [
        Signal::SIGKILL,
        Signal::SIGSTOP,
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGABRT,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
    ] {
        mask.remove(signal);
    }
    mask.thread_block().context("hold signals back")?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("receive signals")?;
    let raw = master.map(|(_, ends)| Raw::enter(ends)).transpose()?;
    let master = master.map(|(master, _)| master);
    if let Some(master) = master {
        copy_size(master);
    }
    let mut copier = master.map(Copier::new).transpose()?;
    let wakes: Vec<_> = [signals.as_fd()].into_iter().chain(notify.map(AsFd::as_fd)).collect();
    loop {
        let status = ended(pid)?;
        if let Some(Err(error)) = notify.map(NotifySocket::pass_on) {
            // The container runs, whatever the service manager's socket is.
            tracing::warn!("{error:#}");
        }
        if let Some(status) = status {
            if let Some(copier) = &mut copier {
                copier.drain()?;
            }
            drop(raw);
            return Ok(status);
        }
        match &mut copier {
            Some(terminal) => {
                if !terminal.turn(&wakes)? {
                    copier = None;
                }
            }
            None => {
                let of = |wake| PollFd::from_borrowed_fd(wake, PollFlags::IN);
                let mut fds: Vec<_> = wakes.iter().copied().map(of).collect();
                match rustix::event::poll(&mut fds, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error).context("wait for signals"),
                }
            }
        }
        while let Some(signal) = signals.read_signal().context("receive a signal")? {
            pass_on(signal.ssi_signo, pid, master);
        }
    }
}

fn pass_on(signal: u32, pid: Pid, master: Option<&OwnedFd>) {
    match Signal::try_from(signal as i32) {
        Ok(Signal::SIGCHLD | Signal::SIGPIPE | Signal::SIGURG) => {}
        Ok(Signal::SIGWINCH) if master.is_some() => {
            if let Some(master) = master {
                copy_size(master);
            }
        }
        _ => {
            // SAFETY: the kernel just reported this number as a signal's.
            let signal = unsafe { rustix::process::Signal::from_raw_unchecked(signal as i32) };
            // It may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }
}

fn ended(pid: Pid) -> Result<Option<ExitStatus>> {
    loop {
        return match waitpid(Some(pid), WaitOptions::NOHANG) {
            Err(Errno::INTR) => continue,
            Err(error) => Err(error).context("wait for the container's process"),
            Ok(None) => Ok(None),
            Ok(Some((_, status))) => {
                Ok(Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => ExitStatus::Exited(code as u8),
                    (None, signal) => ExitStatus::Signaled(signal.unwrap_or(9) as u8),
                }))
            }
        };
    }
}
