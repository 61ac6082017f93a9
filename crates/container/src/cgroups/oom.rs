//! Noticing that a container's memory is exhausted.
//!
//! Version 1 tells through an eventfd (Documentation/admin-guide/cgroup-v1/memory.rst, "OOM
//! Control"), version 2 by modifying `memory.events`, which counts kills.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use runhcs_compute::{Error, Result};
use rustix::event::EventfdFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::stats::parse::keyed;
use super::{Cgroup, CgroupPaths, v1};
use crate::error::Context;

/// Something that becomes readable when the memory may be exhausted.
#[derive(Debug)]
pub(crate) enum OomSource {
    /// An eventfd, and how often it has told.
    V1 { eventfd: OwnedFd, total: u64 },
    /// An inotify instance, and the file it watches.
    V2 { inotify: OwnedFd, events: PathBuf },
}

impl Cgroup {
    /// Begins to watch.
    pub(crate) fn watch_oom(&self) -> Result<OomSource> {
        let missing = || {
            Error::Unsupported("the container has no memory cgroup that could tell of it".into())
        };
        match &self.paths {
            CgroupPaths::V1(paths) => {
                let path = v1::directory(paths, "memory").ok_or_else(missing)?;
                let eventfd = watch_v1(path)
                    .context(|| format!("watch memory.oom_control of {}", path.display()))?;
                Ok(OomSource::V1 { eventfd, total: 0 })
            }
            CgroupPaths::V2(path) => {
                let events = path.join("memory.events");
                let what = || format!("watch {}", events.display());
                let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
                let inotify = inotify::init(flags).context(what)?;
                inotify::add_watch(&inotify, &events, WatchFlags::MODIFY).context(what)?;
                Ok(OomSource::V2 { inotify, events })
            }
            CgroupPaths::None => Err(missing()),
        }
    }
}

fn watch_v1(path: &Path) -> io::Result<OwnedFd> {
    let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = File::open(path.join("memory.oom_control"))?;
    let line = format!("{} {}", eventfd.as_raw_fd(), control.as_raw_fd());
    super::files::write_existing(&path.join("cgroup.event_control"), &line)?;
    Ok(eventfd)
}

impl OomSource {
    /// Readable when [`Self::total`] may have changed.
    pub(crate) fn fd(&self) -> impl AsFd {
        match self {
            Self::V1 { eventfd, .. } => eventfd.as_fd(),
            Self::V2 { inotify, .. } => inotify.as_fd(),
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
            Self::V2 { inotify, events } => {
                let mut buffer = [0; 4096];
                match rustix::io::read(&*inotify, &mut buffer) {
                    Ok(_) | Err(Errno::AGAIN) => {}
                    Err(error) => return Err(error.into()),
                }
                let counts = keyed(&std::fs::read_to_string(events)?);
                Ok(counts.get("oom_kill").copied().unwrap_or_default())
            }
        }
    }
}
