//! Who a container's process is: ids, capabilities, limits, labels. Applied in the one order that
//! the kernel allows.

use oci_spec::runtime::{PosixRlimitType, Process};
use runhcs_compute::Result;
use rustix::process::{Gid, Resource, Rlimit, Uid};

use crate::capabilities::Sets;
use crate::error::{Context, invalid};

/// A process's credentials, parsed.
#[derive(Debug)]
pub(crate) struct Credentials<'a> {
    process: &'a Process,
    capabilities: Sets,
    limits: Vec<(Resource, Rlimit)>,
    /// Inside a user namespace that denies setgroups(2), the list of groups can't be changed.
    pub may_set_groups: bool,
}

impl<'a> Credentials<'a> {
    pub(crate) fn new(process: &'a Process) -> Result<Self> {
        let capabilities = Sets::new(process.capabilities().as_ref())?;
        let mut limits: Vec<(Resource, Rlimit)> = Vec::new();
        for (index, limit) in process.rlimits().iter().flatten().enumerate() {
            let field = format!("process.rlimits[{index}]");
            let which = resource(limit.typ());
            if limits.iter().any(|(other, _)| *other == which) {
                return Err(invalid(field, "limits the same resource again"));
            }
            if limit.soft() > limit.hard() {
                return Err(invalid(field, "has a soft limit above its hard limit"));
            }
            // RLIM_INFINITY is the largest number (getrlimit(2)).
            let value = |n: u64| (n != u64::MAX).then_some(n);
            limits.push((
                which,
                Rlimit { current: value(limit.soft()), maximum: value(limit.hard()) },
            ));
        }
        Ok(Self { process, capabilities, limits, may_set_groups: true })
    }

    /// Limits and the out-of-memory score, while the process still has the privilege.
    pub(crate) fn apply_limits(&self) -> Result<()> {
        for (resource, limit) in &self.limits {
            rustix::process::setrlimit(*resource, *limit)
                .context(|| format!("set the limit {resource:?} to {limit:?}"))?;
        }
        Ok(())
    }

    /// Changes the ids and capabilities to the container's. Nothing privileged works after it.
    pub(crate) fn apply(&self) -> Result<()> {
        let user = self.process.user();
        self.capabilities.drop_bounding()?;
        rustix::thread::set_keep_capabilities(true).context(|| "keep capabilities".into())?;
        let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
        if self.may_set_groups {
            let groups: Vec<Gid> =
                user.additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid)).collect();
            rustix::thread::set_thread_groups(&groups)
                .context(|| format!("set the supplementary groups to {groups:?}"))?;
        } else if user.additional_gids().as_ref().is_some_and(|gids| !gids.is_empty()) {
            return Err(invalid(
                "process.user.additionalGids",
                "can't be set: the user namespace denies setgroups",
            ));
        }
        rustix::thread::set_thread_res_gid(gid, gid, gid)
            .context(|| format!("set the group id to {}", user.gid()))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)
            .context(|| format!("set the user id to {}", user.uid()))?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(user.umask().unwrap_or(0o022)));
        rustix::thread::set_keep_capabilities(false)
            .context(|| "stop keeping capabilities".into())?;
        self.capabilities.apply()?;
        if self.process.no_new_privileges() == Some(true) {
            rustix::thread::set_no_new_privs(true).context(|| "set no_new_privs".into())?;
        }
        Ok(())
    }
}

fn resource(kind: PosixRlimitType) -> Resource {
    use PosixRlimitType as T;
    match kind {
        T::RlimitCpu => Resource::Cpu,
        T::RlimitFsize => Resource::Fsize,
        T::RlimitData => Resource::Data,
        T::RlimitStack => Resource::Stack,
        T::RlimitCore => Resource::Core,
        T::RlimitRss => Resource::Rss,
        T::RlimitNproc => Resource::Nproc,
        T::RlimitNofile => Resource::Nofile,
        T::RlimitMemlock => Resource::Memlock,
        T::RlimitAs => Resource::As,
        T::RlimitLocks => Resource::Locks,
        T::RlimitSigpending => Resource::Sigpending,
        T::RlimitMsgqueue => Resource::Msgqueue,
        T::RlimitNice => Resource::Nice,
        T::RlimitRtprio => Resource::Rtprio,
        T::RlimitRttime => Resource::Rttime,
    }
}
