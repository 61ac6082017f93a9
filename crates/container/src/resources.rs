//! A created container's resources: changing its limits, and what it uses.

use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use runhcs_compute::stats::Stats;
use runhcs_compute::{ComputeSystem, OomNotice, Result, Status};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cgroups::{Limits, MemoryEvents, OomSource};
use crate::container::Container;
use crate::error::{Context, invalid};
use crate::plan::expect;

/// The statuses in which a container has processes.
const ALIVE: [Status; 3] = [Status::Created, Status::Running, Status::Paused];

impl Container {
    /// Sets limits, all that `resources` names. Rules for devices stay as they were.
    ///
    /// # Errors
    /// Names the field that is wrong, or that the kernel refuses; limits written before it stay.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        expect("update", &self.resources.id, self.status()?, &ALIVE)?;
        let resources = self.cgroup().complete(resources)?;
        let mut limits = Limits::parse(&self.resources.cgroups, Some(&resources))?;
        limits.devices = None;
        self.cgroup().update(limits)
    }

    /// Gives the container's class of Intel RDT other schemata.
    ///
    /// # Errors
    /// It has none, or names the field that is wrong.
    pub fn update_rdt(&self, cache: Option<&str>, bandwidth: Option<&str>) -> Result<()> {
        expect("update", &self.resources.id, self.status()?, &ALIVE)?;
        let group = self.resources.rdt.as_ref().ok_or_else(|| {
            let why = "the container was created without Intel RDT, which it can't get later";
            invalid("linux.intelRdt", why)
        })?;
        group.update(cache, bandwidth)
    }

    /// What the container uses.
    ///
    /// # Errors
    /// [`runhcs_compute::Error::InvalidStatus`] if it has stopped.
    pub fn stats(&self) -> Result<Stats> {
        expect("measure", &self.resources.id, self.status()?, &ALIVE)?;
        self.cgroup().stats()
    }

    /// Begins to watch for exhausted memory.
    ///
    /// # Errors
    /// [`runhcs_compute::Error::Unsupported`] without a memory cgroup.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        Ok(OomWatch { container: self.clone(), source: self.cgroup().watch_oom()? })
    }

    /// The counts of out-of-memory kills that control groups of version 2 have.
    ///
    /// # Errors
    /// [`runhcs_compute::Error::Unsupported`] without such a group.
    pub fn memory_events(&self) -> Result<MemoryEvents> {
        self.cgroup().memory_events()
    }
}

/// Notices that a container's memory is exhausted.
#[derive(Debug)]
pub struct OomWatch {
    container: Container,
    source: OomSource,
}

impl OomWatch {
    /// Waits until the count is another than `known`, the container has ended, or `limit` has
    /// passed; not at all if nothing is known yet.
    pub fn wait(&mut self, known: Option<u64>, limit: Duration) -> Result<OomNotice> {
        let deadline = Instant::now() + limit;
        let init = self.container.init.map(|init| init.open()).transpose()?.flatten();
        let mut ended = init.is_none();
        loop {
            let total = match self.source.total() {
                Ok(total) => total,
                // The groups go when the container is deleted.
                Err(_) if ended || self.container.status()? == Status::Stopped => {
                    return Ok(OomNotice { total: known.unwrap_or_default(), ended: true });
                }
                Err(error) => return Err(error).context(|| "count out-of-memory kills".into()),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if ended || known != Some(total) || left.is_zero() {
                return Ok(OomNotice { total, ended: ended && known == Some(total) });
            }
            let timeout =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut fds = vec![self.source.poll_fd()];
            fds.extend(init.as_ref().map(|init| PollFd::new(init, PollFlags::IN)));
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context(|| "wait for out-of-memory kills".into()),
            }
            ended = fds.get(1).is_some_and(|init| !init.revents().is_empty());
        }
    }
}
