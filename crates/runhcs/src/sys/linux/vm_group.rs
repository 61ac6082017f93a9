//! The control groups that a VM's processes are in: those that the configuration of the container
//! that owns the VM names, with its limits, so that they hold for the VM as a whole.

use anyhow::Result;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources, Spec};
use runhcs_compute::ContainerId;
use runhcs_container::{
    CgroupDriver, CgroupPaths, ProcessGroup, ProcessGroupOptions, SystemdScope,
};
use runhcs_spec::VmOptions;
use runhcs_state::{Entry, Locked};

/// The values of the owner's entry that say what there is to be removed: directories, and if
/// systemd made them, what it knows them as.
const GROUP: &str = "vm-group";
const SCOPE: &str = "vm-scope";

/// What QEMU, its translated code, the virtiofs daemon and the VM shim need beside the guest's
/// memory, in MiB.
const OVERHEAD_MIB: u64 = 256;

/// Works out the groups for a VM. `in_pod` tells whether its owner is a pod's sandbox.
pub fn plan(
    id: &ContainerId,
    spec: &Spec,
    options: &VmOptions,
    in_pod: bool,
    driver: CgroupDriver,
) -> Result<ProcessGroup> {
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    // What the VM may grow to is its options' to limit.
    let memory_mib = options.max_memory_mib.unwrap_or(options.memory_mib);
    let resources = resources.map(|resources| of_vm(resources, memory_mib, in_pod));
    Ok(ProcessGroup::plan(ProcessGroupOptions {
        id,
        path: linux.and_then(|linux| linux.cgroups_path().as_deref()),
        resources: resources.as_ref(),
        annotations: spec.annotations().as_ref(),
        driver,
    })?)
}

/// Makes them; what there is to be removed is written down before. `placeholder` is a process that
/// lives until the VM's are there.
pub fn create(entry: &Locked, group: &ProcessGroup, placeholder: u32) -> Result<()> {
    entry.put(GROUP, group.paths())?;
    if let Some(scope) = group.scope() {
        entry.put(SCOPE, scope)?;
    }
    Ok(group.create(placeholder)?)
}

/// Has new limits of the VM's owner hold for its VM, as far as the old ones did.
pub fn update(entry: &Entry, resources: &LinuxResources, in_pod: bool) -> Result<()> {
    let Some(cpu) = resources.cpu().as_ref() else { return Ok(()) };
    let (Some(paths), scope) = stored(entry)? else { return Ok(()) };
    let mut limits = LinuxResources::default();
    limits.set_cpu(Some(of_cpu(cpu, in_pod)));
    Ok(ProcessGroup::update(paths, scope, &limits)?)
}

/// Removes them. The VM has ended.
pub fn remove(entry: &Entry) -> Result<()> {
    let (Some(paths), scope) = stored(entry)? else { return Ok(()) };
    Ok(ProcessGroup::remove(paths, scope)?)
}

fn stored(entry: &Entry) -> Result<(Option<CgroupPaths>, Option<SystemdScope>)> {
    Ok((entry.get(GROUP)?, entry.get(SCOPE)?))
}

/// The limits that a container's make for its VM: of memory and of the host's processors. Others
/// hold in the guest: there are no other processes and devices on the host to limit.
fn of_vm(resources: &LinuxResources, memory_mib: u64, in_pod: bool) -> LinuxResources {
    let mut limits = LinuxResources::default();
    limits.set_memory(resources.memory().as_ref().map(|memory| of_memory(memory, memory_mib)));
    limits.set_cpu(resources.cpu().as_ref().map(|cpu| of_cpu(cpu, in_pod)));
    limits
}

fn of_memory(memory: &LinuxMemory, memory_mib: u64) -> LinuxMemory {
    let mut limits = LinuxMemory::default();
    let Some(limit) = memory.limit().filter(|limit| *limit > 0) else { return limits };
    let least = i64::try_from(memory_mib << 20).unwrap_or(i64::MAX);
    let most = limit.max(least).saturating_add((OVERHEAD_MIB << 20) as i64);
    limits.set_limit(Some(most));
    // Memory and swap together.
    limits.set_swap(match memory.swap() {
        Some(swap) if swap > 0 => Some(most.saturating_add((swap - limit).max(0))),
        other => other,
    });
    limits
}

fn of_cpu(cpu: &LinuxCpu, in_pod: bool) -> LinuxCpu {
    let mut limits = cpu.clone();
    if in_pod {
        // It is the share of a process that only waits; the pod's is with the group above.
        limits.set_shares(None);
    }
    limits.set_realtime_period(None).set_realtime_runtime(None);
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(text: &str) -> LinuxResources {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_vm_has_room_for_its_overhead() {
        let given = resources(r#"{"memory": {"limit": 1073741824, "swap": 1073741924}}"#);
        let limits = of_vm(&given, 1152, false);
        let memory = limits.memory().as_ref().unwrap();
        let most = (1152 + 256) << 20;
        assert_eq!((memory.limit(), memory.swap()), (Some(most), Some(most + 100)));
        // A sandbox that allows itself little must not keep its VM from coming up.
        let small = of_vm(&resources(r#"{"memory": {"limit": 1000000}}"#), 256, true);
        assert_eq!(small.memory().as_ref().unwrap().limit(), Some(512 << 20));
        let none = of_vm(&resources(r#"{"memory": {"limit": -1}}"#), 256, true);
        assert_eq!(none.memory().as_ref().unwrap().limit(), None);
    }

    #[test]
    fn processors_are_the_hosts_and_processes_the_guests() {
        let text = r#"{"cpu": {"shares": 2, "quota": 50000, "cpus": "0"}, "pids": {"limit": 5}}"#;
        let limits = of_vm(&resources(text), 256, true);
        let cpu = limits.cpu().as_ref().unwrap();
        assert_eq!((cpu.shares(), cpu.quota()), (None, Some(50_000)));
        assert_eq!(cpu.cpus().as_deref(), Some("0"));
        assert!(limits.pids().is_none());
        let alone = of_vm(&resources(text), 256, false);
        assert_eq!(alone.cpu().as_ref().unwrap().shares(), Some(2));
    }
}
