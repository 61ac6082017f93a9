//! Becoming a daemon that nobody waits for, and children that don't outlive it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use anyhow::Context;
use nix::sched::CloneFlags;
use nix::unistd::ForkResult;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, getpid, pidfd_open, set_parent_process_death_signal};

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

/// This process, for children that must not outlive it.
#[derive(Debug)]
pub struct Myself(OwnedFd);

impl Myself {
    /// Opens a descriptor of this process (pidfd_open(2)).
    pub fn open() -> io::Result<Self> {
        Ok(Self(pidfd_open(getpid(), PidfdFlags::empty())?))
    }
}

impl AsFd for Myself {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Has the command's process killed when the thread that calls this ends; the daemon's main
/// thread does so only with the daemon. A change of its user undoes this (prctl(2)).
pub fn die_with_us(command: &mut Command) -> io::Result<()> {
    let parent = Myself::open()?;
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(move || die_with(parent.as_fd())) };
    Ok(())
}

/// Has this process killed when its parent, whose descriptor is given, ends. In another pid
/// namespace than the parent's that can't be told by getppid(2).
pub fn die_with(parent: BorrowedFd<'_>) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut ended = [PollFd::from_borrowed_fd(parent, PollFlags::IN)];
    match poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Ok(()),
        // It ended before it could be asked for.
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// Starts a process as the first of a new pid namespace: it sees no other process, and none that
/// it starts outlives it.
pub fn spawn_in_pid_namespace(command: &mut Command) -> io::Result<Child> {
    let ours = File::open("/proc/self/ns/pid")?;
    nix::sched::unshare(CloneFlags::CLONE_NEWPID)?;
    let child = command.spawn();
    // Only children are ever put into the new namespace, so there is a way back (setns(2)).
    let back = nix::sched::setns(&ours, CloneFlags::CLONE_NEWPID);
    if let Err(error) = back {
        if let Ok(mut child) = child {
            child.kill().and_then(|()| child.wait())?;
        }
        return Err(error.into());
    }
    child
}
