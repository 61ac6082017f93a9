//! Who a container's process is: ids, capabilities, limits, labels. Applied in the one order that
//! the kernel allows.

use std::collections::HashSet;

use caps::{CapSet, Capability};
use oci_spec::runtime::{Capabilities, PosixRlimitType, Process};
use runhcs_compute::Result;
use rustix::process::{Gid, Resource, Rlimit, Uid};

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
        let sets = process.capabilities().as_ref();
        let set = |list: Option<&Option<Capabilities>>| -> Result<HashSet<Capability>> {
            list.and_then(Option::as_ref).into_iter().flatten().map(capability).collect()
        };
        let capabilities = Sets {
            bounding: set(sets.map(|s| s.bounding()))?,
            permitted: set(sets.map(|s| s.permitted()))?,
            inheritable: set(sets.map(|s| s.inheritable()))?,
            effective: set(sets.map(|s| s.effective()))?,
            ambient: set(sets.map(|s| s.ambient()))?,
        };
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

/// The five sets of capabilities(7).
#[derive(Debug)]
struct Sets {
    bounding: HashSet<Capability>,
    permitted: HashSet<Capability>,
    inheritable: HashSet<Capability>,
    effective: HashSet<Capability>,
    ambient: HashSet<Capability>,
}

impl Sets {
    /// While the process still has CAP_SETPCAP.
    fn drop_bounding(&self) -> Result<()> {
        let held = caps::read(None, CapSet::Bounding).context(|| "read the bounding set".into())?;
        for capability in held.difference(&self.bounding) {
            caps::drop(None, CapSet::Bounding, *capability)
                .context(|| format!("drop {capability} from the bounding set"))?;
        }
        Ok(())
    }

    /// What the caller itself lacks can't be given; every set shrinks to what there is.
    fn apply(&self) -> Result<()> {
        let both =
            |a: &HashSet<Capability>, b: &HashSet<Capability>| a.intersection(b).copied().collect();
        let held = caps::read(None, CapSet::Permitted).context(|| "read capabilities".into())?;
        let permitted: HashSet<Capability> = both(&self.permitted, &held);
        let inheritable: HashSet<Capability> = both(&self.inheritable, &held);
        let effective: HashSet<Capability> = both(&self.effective, &permitted);
        let ambient = both(&both(&self.ambient, &permitted), &inheritable);
        caps::clear(None, CapSet::Ambient).context(|| "clear the ambient set".into())?;
        // The effective set must always lie within the permitted one, so it goes first.
        for (set, wanted) in [
            (CapSet::Inheritable, &inheritable),
            (CapSet::Effective, &effective),
            (CapSet::Permitted, &permitted),
            (CapSet::Ambient, &ambient),
        ] {
            caps::set(None, set, wanted).context(|| format!("set the {set:?} capabilities"))?;
        }
        Ok(())
    }
}

/// Same names as the kernel's; `caps` and `oci-spec` each have their own type.
fn capability(capability: &oci_spec::runtime::Capability) -> Result<Capability> {
    let name = serde_json::to_value(capability).ok();
    let name = name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
    name.parse().map_err(|_| invalid("process.capabilities", format!("{name} is unknown")))
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
