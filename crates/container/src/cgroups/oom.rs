//! Noticing that a container's memory is exhausted.
//!
//! Version 1 tells through an eventfd (Documentation/admin-guide/cgroup-v1/memory.rst, "OOM
//! Control"), version 2 by modifying `memory.events`, which counts kills.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use runhcs_compute::{Error, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;

use super::stats::parse::keyed;
use super::{Cgroup, CgroupPaths, v1};
use crate::error::Context;

/// More than `memory.events` holds, in bytes.
const MAX_EVENTS: usize = 1 << 10;

/// Something that tells when the memory may be exhausted.
#[derive(Debug)]
pub(crate) enum OomSource {
    /// An eventfd, and how often it has told.
    V1 { eventfd: OwnedFd, total: u64 },
    /// The group's counts.
    V2(MemoryEvents),
}

/// A group's `memory.events` (version 2), with what is below it. The descriptor has a priority event
/// (`POLLPRI`, poll(2)) whenever they have changed since they were read.
#[derive(Debug)]
pub struct MemoryEvents(File);

/// What `memory.events` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomCounts {
    /// How often the kernel has killed a process for want of memory, whoever's limit it was.
    pub kills: u64,
    /// How often a limit of the group, or of one below it, left no other way than to kill.
    pub at_limit: u64,
}

impl MemoryEvents {
    pub(crate) fn open(group: &Path) -> Result<Self> {
        let path = group.join("memory.events");
        let file = File::open(&path).context(|| format!("open {}", path.display()))?;
        Ok(Self(file))
    }

    /// Reads the counts, since the group was made.
    pub fn counts(&self) -> io::Result<OomCounts> {
        let mut buffer = [0; MAX_EVENTS];
        // One read: it is after that that changes are told of.
        let length = self.0.read_at(&mut buffer, 0)?;
        let counts = keyed(&String::from_utf8_lossy(&buffer[..length]));
        let count = |key| counts.get(key).copied().unwrap_or_default();
        Ok(OomCounts { kills: count("oom_kill"), at_limit: count("oom") })
    }
}

impl AsFd for MemoryEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for MemoryEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Cgroup {
    /// Begins to watch.
    pub(crate) fn watch_oom(&self) -> Result<OomSource> {
        match &self.paths {
            CgroupPaths::V1(paths) => {
                let path = v1::directory(paths, "memory").ok_or_else(unsupported)?;
                let eventfd = watch_v1(path)
                    .context(|| format!("watch memory.oom_control of {}", path.display()))?;
                Ok(OomSource::V1 { eventfd, total: 0 })
            }
            CgroupPaths::V2(path) => Ok(OomSource::V2(MemoryEvents::open(path)?)),
            CgroupPaths::None => Err(unsupported()),
        }
    }

    /// The group's counts, which version 2 has.
    pub(crate) fn memory_events(&self) -> Result<MemoryEvents> {
        match &self.paths {
            CgroupPaths::V2(path) => MemoryEvents::open(path),
            CgroupPaths::V1(_) | CgroupPaths::None => Err(unsupported()),
        }
    }
}

fn unsupported() -> Error {
    Error::Unsupported("the container has no memory cgroup that could tell of it".into())
}

fn watch_v1(path: &Path) -> io::Result<OwnedFd> {
    let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = File::open(path.join("memory.oom_control"))?;
    let line = format!("{} {}", eventfd.as_raw_fd(), control.as_raw_fd());
    super::files::write_existing(&path.join("cgroup.event_control"), &line)?;
    Ok(eventfd)
}

impl OomSource {
    /// Ready when [`Self::total`] may have changed.
    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        match self {
            Self::V1 { eventfd, .. } => PollFd::new(eventfd, PollFlags::IN),
            Self::V2(events) => PollFd::new(events, PollFlags::PRI),
        }
    }

    /// How often it has happened: since the watch began in version 1, since the container began in
    /// version 2. Makes the descriptor wait for the next time.
    pub(crate) fn total(&mut self) -> io::Result<u64> {
        match self {
            Self::V1 { eventfd, total } => {
                let mut count = [0; 8];
                match rustix::io::read(&*eventfd, &mut count) {
                    Ok(_) => *total += u64::from_ne_bytes(count),
                    Err(Errno::AGAIN) => {}
                    Err(error) => return Err(error.into()),
                }
                Ok(*total)
            }
            Self::V2(events) => Ok(events.counts()?.kills),
        }
    }
}
