//! Control groups, version 2: one hierarchy (Documentation/admin-guide/cgroup-v2.rst).

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use runhcs_compute::Result;

use super::{device_filter, device_rules, files};
use crate::error::{Context, invalid};
use crate::rootfs::mounts::{PlannedMount, clone_tree};
use crate::rootfs::options::Bind;
use crate::rootfs::resolve::Root;

/// linux/magic.h
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// Whether `path` is a mount of the version 2 hierarchy.
pub(crate) fn is_mounted(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == CGROUP2_SUPER_MAGIC)
}

/// The caller's own group.
pub(crate) fn own_path() -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.map(PathBuf::from).ok_or_else(|| io::Error::other("it names no version 2 group"))
}

pub(crate) fn create(path: &Path, resources: Option<&LinuxResources>) -> Result<()> {
    fs::create_dir_all(path).context(|| format!("make cgroup {}", path.display()))?;
    let settings = resources.map(settings).transpose()?.unwrap_or_default();
    enable_controllers(path);
    for (file, value) in settings {
        let file = path.join(&file);
        if !file.exists() {
            return Err(invalid(
                "linux.resources",
                format!(
                    "{} does not exist; its cgroup controller is not available here",
                    file.display()
                ),
            ));
        }
        files::write(&file, &value)?;
    }
    if let Some(rules) = device_rules::parse(resources)? {
        let directory =
            files::open_directory(path).context(|| format!("open {}", path.display()))?;
        device_filter::attach(directory.as_fd(), &rules)
            .context(|| format!("restrict the devices of cgroup {}", path.display()))?;
    }
    Ok(())
}

/// Enables, from the top down, every controller there is for the group. A controller that can't
/// be enabled somewhere is noticed when a limit needs it.
fn enable_controllers(path: &Path) {
    let Ok(relative) = path.strip_prefix(super::MOUNT_POINT) else { return };
    let mut group = PathBuf::from(super::MOUNT_POINT);
    for part in relative.components() {
        let Ok(controllers) = fs::read_to_string(group.join("cgroup.controllers")) else { return };
        let enabled = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
        for controller in controllers.split_whitespace() {
            if !enabled.split_whitespace().any(|name| name == controller) {
                let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        group.push(part);
    }
}

/// File and value for every limit.
fn settings(resources: &LinuxResources) -> Result<Vec<(String, String)>> {
    let mut list: Vec<(String, String)> = Vec::new();
    let mut set = |file: &str, value: Option<String>| {
        if let Some(value) = value {
            list.push((file.to_owned(), value));
        }
    };
    let limit = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    if let Some(memory) = resources.memory() {
        let total = memory.limit().filter(|v| *v != 0);
        set("memory.max", total.map(limit));
        set("memory.low", memory.reservation().filter(|v| *v > 0).map(limit));
        set("memory.swap.max", swap(total, memory.swap())?);
        if memory.disable_oom_killer() == Some(true) {
            return Err(invalid(
                "linux.resources.memory.disableOOMKiller",
                "cgroup version 2 can't do that",
            ));
        }
    }
    if let Some(cpu) = resources.cpu() {
        set("cpu.weight", cpu.shares().filter(|v| *v != 0).map(|v| weight(v).to_string()));
        let quota = cpu.quota().filter(|v| *v != 0);
        let period = cpu.period().filter(|v| *v != 0);
        if quota.is_some() || period.is_some() {
            let quota = quota.map_or("max".to_owned(), limit);
            set("cpu.max", Some(format!("{quota} {}", period.unwrap_or(100_000))));
        }
        set("cpu.max.burst", cpu.burst().filter(|v| *v != 0).map(|v| v.to_string()));
        set("cpu.idle", cpu.idle().filter(|v| *v != 0).map(|v| v.to_string()));
        set("cpuset.cpus", cpu.cpus().clone().filter(|v| !v.is_empty()));
        set("cpuset.mems", cpu.mems().clone().filter(|v| !v.is_empty()));
        if cpu.realtime_runtime().is_some_and(|v| v != 0) {
            return Err(invalid(
                "linux.resources.cpu.realtimeRuntime",
                "cgroup version 2 has no such limit",
            ));
        }
    }
    if let Some(pids) = resources.pids() {
        set("pids.max", Some(pids.limit()).filter(|v| *v != 0).map(limit));
    }
    if let Some(block) = resources.block_io() {
        set("io.bfq.weight", block.weight().filter(|w| *w != 0).map(|w| w.to_string()));
        let devices = [
            ("rbps", block.throttle_read_bps_device()),
            ("wbps", block.throttle_write_bps_device()),
            ("riops", block.throttle_read_iops_device()),
            ("wiops", block.throttle_write_iops_device()),
        ];
        for (key, limits) in devices {
            for limit in limits.iter().flatten() {
                set(
                    "io.max",
                    Some(format!("{}:{} {key}={}", limit.major(), limit.minor(), limit.rate())),
                );
            }
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        set(&format!("hugetlb.{}.max", limit.page_size()), Some(limit.limit().to_string()));
    }
    for (file, value) in resources.unified().iter().flatten() {
        if file.contains('/') {
            return Err(invalid("linux.resources.unified", format!("{file:?} holds a slash")));
        }
        set(file, Some(value.clone()));
    }
    Ok(list)
}

/// Version 2 counts swap alone; the specification counts memory and swap together.
fn swap(memory: Option<i64>, total: Option<i64>) -> Result<Option<String>> {
    match (memory, total.filter(|v| *v != 0)) {
        (_, None) => Ok(None),
        (_, Some(total)) if total < 0 => Ok(Some("max".into())),
        (Some(memory), Some(total)) if memory > 0 && total >= memory => {
            Ok(Some((total - memory).to_string()))
        }
        (Some(memory), Some(total)) if memory > 0 => Err(invalid(
            "linux.resources.memory.swap",
            format!("{total} is less than the memory limit of {memory}; it counts memory and swap"),
        )),
        _ => Err(invalid("linux.resources.memory.swap", "needs a memory limit as well")),
    }
}

/// Maps `cpu.shares` (2 to 262,144) to `cpu.weight` (1 to 10,000), as crun documents it.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + ((shares - 2) * 9_999) / 262_142
}

pub(crate) fn freeze(path: &Path, frozen: bool) -> Result<()> {
    files::write(&path.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
    super::wait_until(|| {
        let events = fs::read_to_string(path.join("cgroup.events"))?;
        Ok(events.lines().any(|line| line == if frozen { "frozen 1" } else { "frozen 0" }))
    })
    .context(|| format!("wait until cgroup {} has changed", path.display()))
}

pub(crate) fn is_frozen(path: &Path) -> io::Result<bool> {
    match fs::read_to_string(path.join("cgroup.freeze")) {
        Ok(state) => Ok(state.trim() == "1"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The container's own group, where the mount says.
pub(crate) fn mount(path: &Path, root: &Root, mount: &PlannedMount<'_>) -> Result<()> {
    let tree = clone_tree(path, Bind::Shallow)?;
    mount.attach(&tree, &root.directory(mount.destination)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_map_to_weights_at_both_ends() {
        assert_eq!(weight(2), 1);
        assert_eq!(weight(1024), 39);
        assert_eq!(weight(262_144), 10_000);
        assert_eq!(weight(0), 1);
    }

    #[test]
    fn swap_is_counted_alone() {
        assert_eq!(swap(Some(100), Some(150)).unwrap().as_deref(), Some("50"));
        assert_eq!(swap(Some(100), Some(-1)).unwrap().as_deref(), Some("max"));
        assert_eq!(swap(Some(100), None).unwrap(), None);
        assert!(swap(Some(100), Some(50)).is_err());
        assert!(swap(None, Some(50)).is_err());
    }

    #[test]
    fn limits_become_files() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"memory":{"limit":1048576},"cpu":{"quota":50000},"pids":{"limit":7},
                "unified":{"memory.high":"5"}}"#,
        )
        .unwrap();
        let list = settings(&resources).unwrap();
        for (file, value) in [
            ("memory.max", "1048576"),
            ("cpu.max", "50000 100000"),
            ("pids.max", "7"),
            ("memory.high", "5"),
        ] {
            assert!(list.iter().any(|(f, v)| f == file && v == value), "{file}");
        }
    }
}
