//! A container that was created, possibly by another process.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use runhcs_compute::{ComputeSystem, Error, Result, Scope, Signal, Status};

use crate::cgroups::{Cgroup, CgroupPaths};
use crate::error::Context;
use crate::hooks::HookPoint;
use crate::intel_rdt::RdtGroup;
use crate::plan::{Resources, expect};
use crate::{Init, barrier, proc};

/// How long killed processes may take to be gone. They are gone at once unless the kernel is busy
/// on their behalf.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// A container that was, or was about to be, created.
#[derive(Clone, Debug)]
pub struct Container {
    /// What it may have left in the system.
    pub resources: Resources,
    /// `None` if its creation didn't get that far.
    pub init: Option<Init>,
}

/// What a container was doing when it was looked at.
#[derive(Debug)]
pub(crate) struct Seen {
    pub status: Status,
    /// Its init, unless that has ended.
    pub process: Option<OwnedFd>,
}

impl Container {
    /// What it is doing, with what keeps its init's pid from becoming another's.
    pub(crate) fn look(&self) -> Result<Seen> {
        let Some(init) = self.init else {
            return Ok(Seen { status: Status::Creating, process: None });
        };
        let process = init.open()?;
        let status = if process.is_none() {
            Status::Stopped
        } else if self.cgroup().is_frozen()? {
            Status::Paused
        } else if barrier::is_waiting(&self.resources.runtime_dir) {
            Status::Created
        } else {
            Status::Running
        };
        Ok(Seen { status, process })
    }

    pub(crate) fn cgroup(&self) -> Cgroup {
        Cgroup { paths: self.resources.cgroups.clone(), scope: self.resources.scope.clone() }
    }

    /// Its processes, by its control groups; without any, by its pid namespace.
    fn all_processes(&self) -> Result<Vec<u32>> {
        match (&self.resources.cgroups, &self.init) {
            (CgroupPaths::None, Some(init)) => proc::in_pid_namespace_of(init)
                .context(|| format!("list the processes of container {}", self.resources.id)),
            _ => self.cgroup().processes(),
        }
    }

    /// Kills every process in the container's control groups, and init, and waits until they are
    /// gone.
    fn kill_all(&self) -> Result<()> {
        let cgroup = self.cgroup();
        let deadline = Instant::now() + KILL_DEADLINE;
        let init = self.init.map(|init| init.open()).transpose()?.flatten();
        if let Some(init) = &init {
            proc::send(init, Signal::KILL)?;
        }
        for round in 0.. {
            let at_once = cgroup.kill_at_once();
            let mut remaining = cgroup.processes()?;
            if remaining.is_empty() {
                break;
            }
            // Those that fork could be ahead of whoever kills them one by one. Without a freezer
            // there is no better way.
            if round > 0 && !at_once && cgroup.freeze(true).is_ok() {
                remaining = cgroup.processes()?;
            }
            let mut pidfds = Vec::new();
            for pid in remaining {
                let Ok(pidfd) = proc::pidfd(pid) else { continue };
                if !at_once {
                    proc::send(&pidfd, Signal::KILL)?;
                }
                pidfds.push(pidfd);
            }
            if cgroup.is_frozen()? {
                // A frozen process on version 1 can't die.
                cgroup.freeze(false)?;
            }
            for pidfd in pidfds {
                let gone = proc::wait_readable(&pidfd, Some(deadline))
                    .context(|| "wait for killed processes".into())?;
                if !gone {
                    return Err(self.not_killed());
                }
            }
            if Instant::now() > deadline {
                return Err(self.not_killed());
            }
        }
        if let Some(init) = init {
            proc::wait_readable(&init, Some(deadline)).context(|| "wait for init".into())?;
        }
        Ok(())
    }

    fn not_killed(&self) -> Error {
        Error::Timeout {
            operation: format!("killing the processes of container {}", self.resources.id),
            seconds: KILL_DEADLINE.as_secs(),
        }
    }

    /// Signals every process, with none slipping away by forking meanwhile.
    fn signal_all(&self, signal: Signal) -> Result<()> {
        if signal == Signal::KILL && self.cgroup().kill_at_once() {
            return Ok(());
        }
        let cgroup = self.cgroup();
        let was_frozen = cgroup.is_frozen()?;
        // Without a freezer a fork may be missed; there is no better way then.
        let freezes = !was_frozen && cgroup.freeze(true).is_ok();
        let sent = self.all_processes()?.into_iter().try_for_each(|pid| match proc::pidfd(pid) {
            Ok(pidfd) => proc::send(&pidfd, signal),
            Err(_) => Ok(()),
        });
        if freezes || (was_frozen && signal == Signal::KILL) {
            cgroup.freeze(false)?;
        }
        sent
    }
}

impl ComputeSystem for Container {
    fn status(&self) -> Result<Status> {
        self.look().map(|seen| seen.status)
    }

    fn start(&self) -> Result<()> {
        let Seen { status, process } = self.look()?;
        expect("start", &self.resources.id, status, &[Status::Created])?;
        let (Some(init), Some(process)) = (self.init, process) else {
            return Err(Error::NotFound(self.resources.id.clone()));
        };
        barrier::release(&self.resources.runtime_dir, &process)?;
        barrier::remove(&self.resources.runtime_dir)?;
        let (subject, hooks) = (&self.resources.subject, &self.resources.poststart);
        let outcome = subject.run(HookPoint::Poststart, hooks, Status::Running, init.pid);
        if outcome.is_err() {
            // As runc: a container whose poststart hook fails does not go on.
            self.kill_all()?;
        }
        outcome
    }

    fn signal(&self, signal: Signal, scope: Scope) -> Result<()> {
        match scope {
            Scope::All => self.signal_all(signal),
            Scope::Init => match self.init.map(|init| init.open()).transpose()?.flatten() {
                Some(pidfd) => proc::send(&pidfd, signal),
                None => Err(Error::InvalidStatus {
                    operation: "kill",
                    id: self.resources.id.clone(),
                    status: Status::Stopped,
                }),
            },
        }
    }

    fn pause(&self) -> Result<()> {
        let status = self.status()?;
        expect("pause", &self.resources.id, status, &[Status::Running, Status::Created])?;
        self.cgroup().freeze(true)
    }

    fn resume(&self) -> Result<()> {
        expect("resume", &self.resources.id, self.status()?, &[Status::Paused])?;
        self.cgroup().freeze(false)
    }

    fn processes(&self) -> Result<Vec<u32>> {
        self.all_processes()
    }

    fn delete(&self) -> Result<()> {
        self.kill_all()?;
        self.cgroup().remove()?;
        self.resources.rdt.as_ref().map_or(Ok(()), RdtGroup::remove)?;
        barrier::remove(&self.resources.runtime_dir)?;
        self.resources.subject.run_poststop(&self.resources.poststop);
        Ok(())
    }
}
