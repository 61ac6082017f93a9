//! The creating side's part of a container: what init needs is opened, init is cloned, and while it
//! sets up its file system, the control groups are made that it then enters.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use runhcs_compute::{Result, Status};

use crate::channel::Channel;
use crate::child::Child;
use crate::clone::Side;
use crate::error::Context;
use crate::hooks::HookPoint;
use crate::intel_rdt::{NewGroup, RdtPlan};
use crate::namespaces::Joined;
use crate::net_devices::MovedDevices;
use crate::plan::Plan;
use crate::seccomp::{Filter, Watched};
use crate::spawn::spawn;
use crate::{Init, barrier, init, proc, user_namespace};

impl Plan<'_> {
    /// Creates the container up to the point where only `start` is missing. Its init process is a
    /// child of the caller. On failure nothing is left.
    ///
    /// # Errors
    /// The step that failed, on what, and why; also for steps that the init process takes.
    pub fn create(mut self) -> Result<Init> {
        let cgroup = self.cgroup.clone();
        let directory = self.resources().runtime_dir.clone();
        cgroup.refuse_used()?;
        let outcome = self.create_in_steps();
        if outcome.is_err() {
            // The error to report is the first one; what can't be undone now, `delete` finds by
            // the stored resources.
            let _ = barrier::remove(&directory);
            let _ = cgroup.remove();
            // What the first hooks made, the last ones unmake.
            self.subject.run_poststop(HookPoint::Poststop.hooks(self.options.spec));
        }
        outcome
    }

    fn create_in_steps(&mut self) -> Result<Init> {
        let target = self.cgroup.create_target()?;
        let fifo = barrier::make(&self.resources().runtime_dir)?;
        let mut joined = self.namespaces.open_joined()?;
        self.compare_ids(&joined)?;
        let trees = self.root.open()?;
        let new_group = self.rdt.as_ref().map(RdtPlan::create).transpose()?;
        let (channel, theirs) = Channel::pair()?;
        // Joining it may take it away.
        let network = joined.iter().find(|(flag, ..)| *flag == libc::CLONE_NEWNET);
        let network = network.map(|(.., namespace)| namespace.try_clone()).transpose();
        let network = network.context(|| "hold the network namespace".into())?;
        let inherited = init::Inherited { channel: theirs, fifo, trees };
        let kept = init::kept(self, &inherited);
        let flags = self.namespaces.clone_flags();
        let own_time_namespace = self.namespaces.new_time_namespace()?;
        // SAFETY: the engine and its callers start no thread before this point.
        let side = unsafe {
            spawn(&mut joined, flags, target.as_ref().map(AsFd::as_fd), &kept, || self.begin())
        }?;
        let pid = match side {
            Side::Child => {
                // Not one of those that are kept.
                std::mem::forget(channel);
                init::run(self, inherited, joined)
            }
            Side::Parent { pid } => pid,
        };
        drop((inherited, own_time_namespace));
        let mut child = Child::new(pid);
        let process = Init::of(pid)?;
        self.supervise(channel, pid, network.as_ref())?;
        new_group.into_iter().for_each(NewGroup::keep);
        child.keep();
        Ok(process)
    }

    fn joins_user_namespace(&self) -> bool {
        self.namespaces.has(libc::CLONE_NEWUSER) && !self.namespaces.is_new(libc::CLONE_NEWUSER)
    }

    /// The ids of a user namespace that is joined are what they are; to say others is an error.
    fn compare_ids(&self, joined: &Joined) -> Result<()> {
        let user = joined.iter().find(|(flag, ..)| *flag == libc::CLONE_NEWUSER);
        match (user, &self.id_maps) {
            (Some((.., namespace)), Some(maps)) => {
                user_namespace::visit(namespace, |pid| maps.compare(pid))
            }
            _ => Ok(()),
        }
    }

    /// What is done before an existing user namespace is joined, where others could look at the
    /// process (CVE-2016-9962).
    fn begin(&self) -> Result<()> {
        if !self.joins_user_namespace() {
            return Ok(());
        }
        self.set_oom_score("self")?;
        init::hide()
    }

    fn set_oom_score(&self, process: &str) -> Result<()> {
        let Some(score) = self.process.oom_score_adj() else { return Ok(()) };
        proc::write(&Path::new(process).join("oom_score_adj"), &score.to_string())
            .context(|| "process.oomScoreAdj".into())
    }

    /// What is done while init sets up the container.
    fn supervise(
        &self,
        mut channel: Channel,
        pid: u32,
        joined_network: Option<&OwnedFd>,
    ) -> Result<()> {
        if !self.joins_user_namespace() {
            self.id_maps.as_ref().map_or(Ok(()), |maps| maps.write(pid))?;
            // From here: init's own privilege ends with its user namespace, and its files in
            // procfs are out of its reach once it hides itself.
            self.set_oom_score(&pid.to_string())?;
        }
        let devices = if self.has_early_hooks() {
            let devices = self.surround(pid, &mut channel, joined_network)?;
            // They find init in its control groups.
            channel.wait()?;
            self.run_hooks(HookPoint::Prestart, Status::Creating, pid)?;
            self.run_hooks(HookPoint::CreateRuntime, Status::Creating, pid)?;
            self.let_go(pid, &mut channel)?;
            devices
        } else {
            // Groups take as long to be made as a file system to be set up.
            self.let_go(pid, &mut channel)?;
            self.surround(pid, &mut channel, joined_network)?
        };
        if let Some(agent) = self.filter.as_ref().and_then(Filter::agent) {
            let (subject, status) = (&self.subject, Status::Creating);
            agent.introduce(&mut channel, &Watched { subject, status, init: pid, pid })?;
        }
        channel.wait()?;
        devices.into_iter().for_each(MovedDevices::leave);
        Ok(())
    }

    /// Has init set up its file system, with what only this side can open.
    fn let_go(&self, pid: u32, channel: &mut Channel) -> Result<()> {
        channel.go(pid)?;
        self.root.foreign.open_for(pid, channel)
    }

    /// Makes what surrounds init, and gives it the way into its control groups.
    fn surround(
        &self,
        pid: u32,
        channel: &mut Channel,
        joined_network: Option<&OwnedFd>,
    ) -> Result<Option<MovedDevices>> {
        let entrances = self.cgroup.create_further(&self.limits)?;
        self.cgroup.surround(&self.resources().id, pid, self.scope.as_ref(), &self.limits)?;
        self.group_owner.map_or(Ok(()), |uid| self.cgroup.give_to(uid))?;
        self.resources().rdt.as_ref().map_or(Ok(()), |group| group.add(pid))?;
        let devices = self.move_net_devices(pid, joined_network)?;
        entrances.send(channel)?;
        Ok(devices)
    }

    /// The devices come back if a later step fails.
    fn move_net_devices(
        &self,
        pid: u32,
        joined_network: Option<&OwnedFd>,
    ) -> Result<Option<MovedDevices>> {
        if self.net_devices.is_empty() {
            return Ok(None);
        }
        let what = || "open the container's network namespace".to_owned();
        let namespace = match joined_network {
            Some(joined) => joined.try_clone().context(what)?,
            None => File::open(format!("/proc/{pid}/ns/net")).context(what)?.into(),
        };
        self.net_devices.move_to(namespace).map(Some)
    }
}
