//! What containers need of their VM to use up their limits.

use std::cell::RefCell;
use std::collections::HashMap;

use oci_spec::runtime::{LinuxCpu, LinuxResources};
use runhcs_compute::ContainerId;
use runhcs_protocol::guest::Hardware;

/// The period of a quota that has none, in microseconds (sched_cfs_period_us of the kernel's
/// Documentation/scheduler/sched-bwc.rst).
const DEFAULT_PERIOD: u64 = 100_000;

/// The quotas of processor time that containers have. A change may be of the quota alone, or of its
/// period, and means nothing without the other.
#[derive(Debug, Default)]
pub struct Limits(RefCell<HashMap<ContainerId, Quota>>);

/// In microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Quota {
    /// None, or below zero, is no limit.
    quota: Option<i64>,
    period: Option<u64>,
}

impl Limits {
    /// A container has these limits now; what they don't name is as it was.
    pub fn note(&self, id: &ContainerId, resources: Option<&LinuxResources>) {
        let Some(cpu) = resources.and_then(|resources| resources.cpu().as_ref()) else { return };
        let mut known = self.0.borrow_mut();
        let quota = known.entry(id.clone()).or_default();
        *quota = quota.with(cpu);
    }

    /// A container is gone.
    pub fn forget(&self, id: &ContainerId) {
        self.0.borrow_mut().remove(id);
    }

    /// What a VM must have for a container to use up these limits once it has them; 0 where there
    /// is none.
    pub fn needed(&self, id: &ContainerId, resources: &LinuxResources) -> Hardware {
        let limit = resources.memory().as_ref().and_then(|memory| memory.limit());
        let quota = resources.cpu().as_ref().map(|cpu| {
            let known = self.0.borrow().get(id).copied().unwrap_or_default();
            known.with(cpu)
        });
        Hardware {
            // Below zero there is none.
            memory_mib: u64::try_from(limit.unwrap_or_default())
                .unwrap_or_default()
                .div_ceil(1 << 20),
            vcpus: quota.map_or(0, Quota::processors),
        }
    }
}

impl Quota {
    /// With what is changed; 0 means that it isn't.
    fn with(self, cpu: &LinuxCpu) -> Self {
        Self {
            quota: cpu.quota().filter(|quota| *quota != 0).or(self.quota),
            period: cpu.period().filter(|period| *period != 0).or(self.period),
        }
    }

    fn processors(self) -> u32 {
        let quota = self.quota.and_then(|quota| u64::try_from(quota).ok()).unwrap_or_default();
        let processors = quota.div_ceil(self.period.unwrap_or(DEFAULT_PERIOD));
        u32::try_from(processors).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resources(value: Value) -> LinuxResources {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn they_come_to_memory_and_processors() {
        let id: ContainerId = "box".parse().unwrap();
        let needed = |value: Value| {
            let Hardware { memory_mib, vcpus } = Limits::default().needed(&id, &resources(value));
            (memory_mib, vcpus)
        };
        assert_eq!(needed(json!({})), (0, 0));
        let none = json!({ "memory": { "limit": -1 }, "cpu": { "quota": -1, "period": 5 } });
        assert_eq!(needed(none), (0, 0));
        assert_eq!(needed(json!({ "memory": { "limit": (1 << 20) + 1 } })), (2, 0));
        assert_eq!(needed(json!({ "cpu": { "quota": 150_000, "period": 100_000 } })), (0, 2));
        assert_eq!(needed(json!({ "cpu": { "quota": 250_000 } })), (0, 3));
        assert_eq!(needed(json!({ "cpu": { "quota": 5, "period": 0 } })), (0, 1));
        assert_eq!(needed(json!({ "cpu": { "period": 5 } })), (0, 0));
    }

    #[test]
    fn what_is_not_changed_counts_as_it_was() {
        let (limits, id): (Limits, ContainerId) = (Limits::default(), "box".parse().unwrap());
        let vcpus = |value: Value| limits.needed(&id, &resources(value)).vcpus;
        let quota = json!({ "cpu": { "quota": 40_000, "period": 20_000 } });
        limits.note(&id, Some(&resources(quota)));
        assert_eq!(vcpus(json!({ "cpu": { "quota": 60_000 } })), 3);
        assert_eq!(vcpus(json!({ "cpu": { "period": 10_000 } })), 4);
        assert_eq!(vcpus(json!({ "memory": { "limit": 1 } })), 0);
        limits.note(&id, Some(&resources(json!({ "cpu": { "quota": -1 } }))));
        assert_eq!(vcpus(json!({ "cpu": { "period": 10_000 } })), 0);
        limits.forget(&id);
        assert_eq!(vcpus(json!({ "cpu": { "quota": 60_000 } })), 1);
    }
}
