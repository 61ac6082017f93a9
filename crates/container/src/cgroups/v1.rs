//! Control groups, version 1: one hierarchy a controller (or a few), each with its own directory
//! (Documentation/admin-guide/cgroup-v1).

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use runhcs_compute::Result;

use super::device_filter::{Kind, Rule};
use super::files;
use super::limits::Limits;
use crate::error::{Context, invalid};
use crate::proc::{read_long, read_short};
use crate::rootfs::mounts::{Kind as MountKind, PlannedMount, clone_tree};
use crate::rootfs::options::{Bind, MountOptions};
use crate::rootfs::resolve::Root;

/// The name that stands for the hierarchy of version 2 beside those of version 1 (hybrid mode), by
/// which the kernel, too, means that one (cgroups(7), `/proc/<pid>/cgroup`). systemd and others
/// look there for the processes of a unit.
pub(crate) const UNIFIED: &str = "";

/// One mounted hierarchy.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    pub controllers: String,
    pub mount_point: PathBuf,
    /// The group that is mounted there: within a container, the mount may show only a part.
    pub root: PathBuf,
    pub own_path: PathBuf,
}

/// The hierarchies that are mounted, with the caller's own group in each.
pub(crate) fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    let mounts = read_long("/proc/self/mountinfo")?;
    let own = read_long("/proc/self/cgroup")?;
    Ok(parse_hierarchies(&mounts, &own))
}

/// A mounted hierarchy, as a line of `/proc/self/mountinfo` has it.
struct MountedHierarchy<'a> {
    version_2: bool,
    root: &'a str,
    point: &'a str,
    /// Version 1's controllers are among them.
    options: &'a str,
}

impl<'a> MountedHierarchy<'a> {
    /// Of a line about another file system `None`; there can be hundreds.
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let version_2 = match after.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let options = after.nth(1)?;
        let mut before = before.split(' ').skip(3);
        Some(Self { version_2, root: before.next()?, point: before.next()?, options })
    }

    fn has(&self, controllers: &str) -> bool {
        let has = |name: &str| self.options.split(',').any(|option| option == name);
        match controllers {
            UNIFIED => self.version_2,
            controllers => !self.version_2 && controllers.split(',').all(has),
        }
    }
}

/// Joins `/proc/self/mountinfo` (proc(5)) and `/proc/self/cgroup` (cgroups(7)).
fn parse_hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let mounts: Vec<_> = mounts.lines().filter_map(MountedHierarchy::parse).collect();
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if let Some(MountedHierarchy { root, point, .. }) =
            mounts.iter().find(|mount| mount.has(controllers))
        {
            let own_path = Path::new(path).strip_prefix(root).unwrap_or(Path::new(path));
            found.push(Hierarchy {
                controllers: controllers.trim_start_matches("name=").to_owned(),
                mount_point: PathBuf::from(point),
                root: PathBuf::from(root),
                own_path: own_path.to_owned(),
            });
        }
    }
    // Version 2 alone is not what this is about.
    if found.iter().all(|hierarchy| hierarchy.controllers == UNIFIED) {
        found.clear();
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

/// Makes the groups; [`limit`] then sets their limits.
pub(crate) fn create(paths: &[(String, PathBuf)]) -> Result<()> {
    for (controllers, path) in paths {
        files::make_group(path)?;
        if controllers.split(',').any(|name| name == "cpuset") {
            inherit_cpuset(path).context(|| format!("set up cgroup {}", path.display()))?;
        }
    }
    Ok(())
}

/// Sets the limits of groups that exist.
pub(crate) fn limit(paths: &[(String, PathBuf)], limits: &Limits) -> Result<()> {
    limits.write(|setting| directory(paths, setting.controller).map(Path::to_owned))?;
    let Some(rules) = &limits.devices else { return Ok(()) };
    let path = directory(paths, "devices").ok_or_else(|| {
        invalid("linux.resources.devices", "this system has no cgroup controller `devices`")
    })?;
    // One rule a write, but not a file each.
    for rules in rules.chunk_by(|one, next| one.allow == next.allow) {
        let allow = rules.first().is_some_and(|rule| rule.allow);
        let path = path.join(if allow { "devices.allow" } else { "devices.deny" });
        let file = fs::OpenOptions::new().write(true).open(&path);
        let mut file = file.context(|| format!("open {}", path.display()))?;
        for line in rules.iter().map(device_line) {
            file.write_all(line.as_bytes())
                .context(|| format!("write {line:?} to {}", path.display()))?;
        }
    }
    Ok(())
}

/// A new cpuset is empty and takes no process until it has CPUs and memory nodes (cpuset(7)).
fn inherit_cpuset(path: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut missing = vec![path];
        while let Some(parent) = missing.last().and_then(|path| path.parent()) {
            let text = read_long(parent.join(file))?;
            if !text.trim().is_empty() {
                for group in missing.iter().rev() {
                    if read_long(group.join(file))?.trim().is_empty() {
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
    match read_short(path.join("freezer.state")) {
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
    let mut writable = PlannedMount {
        destination: mount.destination.clone(),
        kind: MountKind::FileSystem { name: "tmpfs", source: "tmpfs" },
        options: MountOptions::parse(["nosuid", "nodev", "noexec", "mode=755"]),
    };
    let context = mount.options.data.iter().filter(|option| option.starts_with("context="));
    writable.options.data.extend(context.cloned());
    let tmpfs = Root::from(writable.make(root)?);
    for (controllers, path) in paths.iter().filter(|(controllers, _)| controllers != UNIFIED) {
        let destination = mount.destination.join(controllers);
        let bind = PlannedMount {
            destination: (&destination).into(),
            kind: MountKind::Bind { source: path, bind: Bind::Shallow },
            options: MountOptions {
                attributes: mount.options.attributes,
                recursive: mount.options.recursive,
                ..MountOptions::default()
            },
        };
        let tree = clone_tree(path, Bind::Shallow)?;
        bind.attach(&tree, &tmpfs.directory(&Path::new("/").join(controllers))?)?;
        for name in controllers.split(',').filter(|_| controllers.contains(',')) {
            rustix::fs::symlinkat(controllers, &tmpfs, name)
                .context(|| format!("link the cgroup controller {name}"))?;
        }
    }
    if !mount.options.attributes.is_empty() {
        crate::rootfs::set_attributes(tmpfs.as_fd(), mount.options.attributes)
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
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].mount_point, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found[0].own_path, Path::new("a"));
        assert_eq!(found[1].controllers, "systemd");
        assert_eq!(
            (found[2].controllers.as_str(), found[2].mount_point.as_path()),
            (UNIFIED, Path::new("/sys/fs/cgroup/unified"))
        );
        let version_2 = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert!(parse_hierarchies(version_2, "0::/\n").is_empty());
    }
}
