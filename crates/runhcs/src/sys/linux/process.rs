//! Processes that the state names, as descriptors.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use runhcs_state::ProcessHandle;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The process as a descriptor, which can't come to mean another one (pidfd_open(2)); `None` if it
/// has ended, or is none (0).
pub fn open(process: ProcessHandle) -> Result<Option<OwnedFd>> {
    let what = || format!("open process {}", process.pid);
    let Some(pid) = Pid::from_raw(process.pid as i32) else { return Ok(None) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        // Also what is no process: a thread, or one that is reaped at this moment (EINVAL).
        Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
        other => other.with_context(what)?,
    };
    // After it was opened: before that, another process could have taken the pid.
    Ok(process.is_alive()?.then_some(pidfd))
}
