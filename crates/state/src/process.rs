//! Processes that can't be mistaken for later ones with the same pid.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, sys};

/// A process that can't be mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessHandle {
    /// Its pid on the host.
    pub pid: u32,
    /// When it started: on Linux in clock ticks since boot, field 22 of `/proc/<pid>/stat`
    /// (proc(5)); on Windows in units of 100 ns since 1601 (GetProcessTimes).
    pub start_time: u64,
}

impl ProcessHandle {
    /// The calling process.
    ///
    /// # Errors
    /// The kernel doesn't say.
    pub fn current() -> Result<Self> {
        let pid = std::process::id();
        match Self::of(pid)? {
            Some(handle) => Ok(handle),
            // As in a mount namespace with another pid namespace's /proc.
            None => Err(Error::io("find this process in", Path::new("/proc"), ErrorKind::NotFound)),
        }
    }

    /// The process that has this pid now; `None` if there is none, or only a zombie.
    ///
    /// # Errors
    /// The kernel doesn't say.
    pub fn of(pid: u32) -> Result<Option<Self>> {
        let alive = sys::process_times(pid)?.filter(|times| !times.ended);
        Ok(alive.map(|times| Self { pid, start_time: times.start_time }))
    }

    /// Whether the process still runs. A zombie has ended.
    ///
    /// # Errors
    /// The kernel doesn't say.
    pub fn is_alive(&self) -> Result<bool> {
        Ok(Self::of(self.pid)? == Some(*self))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn this_process_is_alive() {
        let me = ProcessHandle::current().unwrap();
        assert!(me.start_time > 0);
        assert!(me.is_alive().unwrap());
        assert_eq!(ProcessHandle::of(me.pid).unwrap(), Some(me));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = ProcessHandle::current().unwrap();
        let earlier = ProcessHandle { start_time: me.start_time - 1, ..me };
        assert!(!earlier.is_alive().unwrap());
    }

    #[test]
    fn a_zombie_and_a_reaped_child_are_dead() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let handle = ProcessHandle::of(child.id()).unwrap().unwrap();
        assert!(handle.is_alive().unwrap());
        child.kill().unwrap();
        // Not reaped yet: it is a zombie as soon as the signal has been handled.
        while handle.is_alive().unwrap() {
            std::thread::yield_now();
        }
        assert!(std::path::Path::new(&format!("/proc/{}", handle.pid)).exists());
        child.wait().unwrap();
        assert!(!handle.is_alive().unwrap());
    }

    #[test]
    fn there_is_no_process_0() {
        assert_eq!(ProcessHandle::of(0).unwrap(), None);
        assert_eq!(ProcessHandle::of(u32::MAX).unwrap(), None);
    }
}
