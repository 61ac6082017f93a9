//! Control groups, version 1: one hierarchy a controller (or a few), each with its own directory
//! (Documentation/admin-guide/cgroup-v1).

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use runhcs_compute::Result;

use super::device_filter::{Kind, Rule};
use super::{device_rules, files};
use crate::error::{Context, invalid};
use crate::rootfs::mounts::{Kind as MountKind, PlannedMount, clone_tree};
use crate::rootfs::options::{Bind, MountOptions};
use crate::rootfs::resolve::Root;

/// One mounted hierarchy.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    pub controllers: String,
    pub mount_point: PathBuf,
    pub own_path: PathBuf,
}

/// The hierarchies that are mounted, with the caller's own group in each.
pub(crate) fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    Ok(parse_hierarchies(&mounts, &own))
}

/// Joins `/proc/self/mountinfo` (proc(5)) and `/proc/self/cgroup` (cgroups(7)).
fn parse_hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            continue; // version 2
        }
        let mount = mounts.lines().find_map(|mount| {
            let (before, after) = mount.split_once(" - ")?;
            let mut after = after.split(' ');
            let (kind, options) = (after.next()?, after.nth(1)?);
            let mut before = before.split(' ').skip(3);
            let (root, point) = (before.next()?, before.next()?);
            let has = |name: &str| options.split(',').any(|option| option == name);
            (kind == "cgroup" && controllers.split(',').all(has)).then_some((root, point))
        });
        if let Some((root, point)) = mount {
            // Within a container, the mount may show only a part of the hierarchy.
            let own_path = Path::new(path).strip_prefix(root).unwrap_or(Path::new(path));
            found.push(Hierarchy {
                controllers: controllers.trim_start_matches("name=").to_owned(),
                mount_point: PathBuf::from(point),
                own_path: own_path.to_owned(),
            });
        }
    }
    found
}

/// The directory in the hierarchy of `controller`.
pub(crate) fn directory<'a>(paths: &'a [(String, PathBuf)], controller: &str) -> Option<&'a Path> {
    paths
        .iter()
        .find(|(names, _)| names.split(',').any(|name| name == controller))
        .map(|(_, path)| path.as_path())
}

pub(crate) fn create(
    paths: &[(String, PathBuf)],
    resources: Option<&LinuxResources>,
) -> Result<()> {
    for (controllers, path) in paths {
        fs::create_dir_all(path).context(|| format!("make cgroup {}", path.display()))?;
        if controllers.split(',').any(|name| name == "cpuset") {
            inherit_cpuset(path).context(|| format!("set up cgroup {}", path.display()))?;
        }
    }
    let settings = resources.map(settings).transpose()?.unwrap_or_default();
    for (controller, file, value) in settings {
        let path = directory(paths, controller).ok_or_else(|| {
            invalid(
                "linux.resources",
                format!("this system has no cgroup controller `{controller}`"),
            )
        })?;
        files::write(&path.join(file), &value)?;
    }
    if let Some(rules) = device_rules::parse(resources)? {
        let path = directory(paths, "devices").ok_or_else(|| {
            invalid("linux.resources.devices", "this system has no cgroup controller `devices`")
        })?;
        for rule in rules {
            let file = if rule.allow { "devices.allow" } else { "devices.deny" };
            files::write(&path.join(file), &device_line(&rule))?;
        }
    }
    Ok(())
}

/// A new cpuset is empty and takes no process until it has CPUs and memory nodes (cpuset(7)).
fn inherit_cpuset(path: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut missing = vec![path];
        while let Some(parent) = missing.last().and_then(|path| path.parent()) {
            let text = fs::read_to_string(parent.join(file))?;
            if !text.trim().is_empty() {
                for group in missing.iter().rev() {
                    if fs::read_to_string(group.join(file))?.trim().is_empty() {
                        fs::write(group.join(file), text.trim())?;
                    }
                }
                break;
            }
            missing.push(parent);
        }
    }
    Ok(())
}

/// Controller, file and value for every limit.
fn settings(resources: &LinuxResources) -> Result<Vec<(&'static str, String, String)>> {
    let mut list = Vec::new();
    let mut set = |controller, file: &str, value: Option<String>| {
        if let Some(value) = value {
            list.push((controller, file.to_owned(), value));
        }
    };
    let text = |value: Option<i64>| value.filter(|v| *v != 0).map(|v| v.to_string());
    if let Some(memory) = resources.memory() {
        set("memory", "memory.limit_in_bytes", text(memory.limit()));
        set("memory", "memory.memsw.limit_in_bytes", text(memory.swap()));
        set("memory", "memory.soft_limit_in_bytes", text(memory.reservation()));
        set("memory", "memory.kmem.tcp.limit_in_bytes", text(memory.kernel_tcp()));
        set("memory", "memory.swappiness", memory.swappiness().map(|v| v.to_string()));
        set(
            "memory",
            "memory.oom_control",
            memory.disable_oom_killer().filter(|v| *v).map(|_| "1".into()),
        );
    }
    if let Some(cpu) = resources.cpu() {
        let number = |value: Option<u64>| value.filter(|v| *v != 0).map(|v| v.to_string());
        set("cpu", "cpu.shares", number(cpu.shares()));
        set("cpu", "cpu.cfs_period_us", number(cpu.period()));
        set("cpu", "cpu.cfs_quota_us", text(cpu.quota()));
        set("cpu", "cpu.cfs_burst_us", number(cpu.burst()));
        set("cpu", "cpu.idle", text(cpu.idle()));
        set("cpu", "cpu.rt_period_us", number(cpu.realtime_period()));
        set("cpu", "cpu.rt_runtime_us", text(cpu.realtime_runtime()));
        set("cpuset", "cpuset.cpus", cpu.cpus().clone().filter(|v| !v.is_empty()));
        set("cpuset", "cpuset.mems", cpu.mems().clone().filter(|v| !v.is_empty()));
    }
    if let Some(pids) = resources.pids() {
        let limit = pids.limit();
        let value = if limit > 0 { limit.to_string() } else { "max".into() };
        set("pids", "pids.max", (limit != 0).then_some(value));
    }
    if let Some(block) = resources.block_io() {
        set("blkio", "blkio.bfq.weight", block.weight().filter(|w| *w != 0).map(|w| w.to_string()));
        let devices = [
            ("blkio.throttle.read_bps_device", block.throttle_read_bps_device()),
            ("blkio.throttle.write_bps_device", block.throttle_write_bps_device()),
            ("blkio.throttle.read_iops_device", block.throttle_read_iops_device()),
            ("blkio.throttle.write_iops_device", block.throttle_write_iops_device()),
        ];
        for (file, limits) in devices {
            for limit in limits.iter().flatten() {
                let line = format!("{}:{} {}", limit.major(), limit.minor(), limit.rate());
                set("blkio", file, Some(line));
            }
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size());
        set("hugetlb", &file, Some(limit.limit().to_string()));
    }
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(invalid(
            "linux.resources.unified",
            "is for cgroup version 2; this system has version 1",
        ));
    }
    Ok(list)
}

/// A rule as `devices.allow` and `devices.deny` take it.
fn device_line(rule: &Rule) -> String {
    let kind = match rule.kind {
        Kind::All => 'a',
        Kind::Block => 'b',
        Kind::Char => 'c',
    };
    let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
    format!("{kind} {}:{} {}", number(rule.major), number(rule.minor), rule.access)
}

pub(crate) fn freeze(path: &Path, frozen: bool) -> Result<()> {
    let state = if frozen { "FROZEN" } else { "THAWED" };
    let file = path.join("freezer.state");
    super::wait_until(|| {
        // Writing again makes the kernel go over processes that were forked meanwhile.
        fs::write(&file, state)?;
        Ok(fs::read_to_string(&file)?.trim() == state)
    })
    .context(|| format!("write {state} to {}", file.display()))
}

pub(crate) fn is_frozen(path: &Path) -> io::Result<bool> {
    match fs::read_to_string(path.join("freezer.state")) {
        Ok(state) => Ok(state.trim() != "THAWED"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A tmpfs with a bind mount of the container's own group for each hierarchy.
pub(crate) fn mount(
    paths: &[(String, PathBuf)],
    root: &Root,
    mount: &PlannedMount<'_>,
) -> Result<()> {
    let writable = PlannedMount {
        destination: mount.destination,
        kind: MountKind::FileSystem { name: "tmpfs", source: "tmpfs" },
        options: MountOptions::parse(["nosuid", "nodev", "noexec", "mode=755"]),
    };
    writable.make(root)?;
    for (controllers, path) in paths {
        let destination = mount.destination.join(controllers);
        let bind = PlannedMount {
            destination: &destination,
            kind: MountKind::Bind { source: path, bind: Bind::Shallow },
            options: MountOptions {
                attributes: mount.options.attributes,
                recursive: mount.options.recursive,
                ..MountOptions::default()
            },
        };
        let tree = clone_tree(path, Bind::Shallow)?;
        bind.attach(&tree, &root.directory(&destination)?)?;
        for name in controllers.split(',').filter(|_| controllers.contains(',')) {
            let directory = root.directory(mount.destination)?;
            rustix::fs::symlinkat(controllers, &directory, name)
                .context(|| format!("link the cgroup controller {name}"))?;
        }
    }
    if !mount.options.attributes.is_empty() {
        let target = root.directory(mount.destination)?;
        crate::rootfs::set_attributes(target.as_fd(), mount.options.attributes)
            .context(|| format!("set the mount options of {}", mount.destination.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_hierarchies_of_several_controllers() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      31 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "3:cpu,cpuacct:/a\n1:name=systemd:/\n0::/\n";
        let found = parse_hierarchies(mounts, own);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].mount_point, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found[0].own_path, Path::new("a"));
        assert_eq!(found[1].controllers, "systemd");
    }

    #[test]
    fn limits_become_files() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"memory":{"limit":1048576,"swap":-1},"cpu":{"shares":512,"quota":-1,"cpus":"0"},
                "pids":{"limit":-1}}"#,
        )
        .unwrap();
        let list = settings(&resources).unwrap();
        let has = |c: &str, f: &str, v: &str| {
            list.iter().any(|(a, b, d)| (*a, b.as_str(), d.as_str()) == (c, f, v))
        };
        assert!(has("memory", "memory.limit_in_bytes", "1048576"));
        assert!(has("memory", "memory.memsw.limit_in_bytes", "-1"));
        assert!(has("cpu", "cpu.cfs_quota_us", "-1"));
        assert!(has("cpuset", "cpuset.cpus", "0"));
        assert!(has("pids", "pids.max", "max"));
    }
}
