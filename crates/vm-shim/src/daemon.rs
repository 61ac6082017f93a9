//! Becoming a daemon that nobody waits for, and children that don't outlive it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use nix::unistd::ForkResult;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

/// Leaves the launching process: returns in a child that leads a session of its own, while the
/// process that was launched ends at once, so that its parent has nothing to wait for. Closes
/// every descriptor but standard input, output and error.
///
/// Only for a process that has one thread.
pub fn detach() -> anyhow::Result<()> {
    // SAFETY: nothing in this process owns a descriptor above 2 yet.
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("cannot close inherited descriptors");
    }
    // SAFETY: the process has one thread, so the child may do whatever it could.
    match unsafe { nix::unistd::fork() }.context("cannot fork")? {
        ForkResult::Parent { .. } => std::process::exit(0),
        ForkResult::Child => {}
    }
    rustix::process::setsid().context("cannot start a session")?;
    std::env::set_current_dir("/").context("cannot change to /")?;
    // What the daemon makes is its own; whoever launched it may have had another idea.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(())
}

/// Has the command's process killed when the thread that calls this ends; the daemon's main
/// thread does so only with the daemon.
pub fn die_with_us(command: &mut Command) {
    let us = getpid();
    // SAFETY: the closure makes three system calls and allocates nothing.
    unsafe { command.pre_exec(move || die_with(us)) };
}

fn die_with(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() == Some(parent) {
        return Ok(());
    }
    // It ended before it could be asked for.
    Err(io::ErrorKind::BrokenPipe.into())
}
