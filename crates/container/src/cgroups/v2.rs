//! Control groups, version 2: one hierarchy (Documentation/admin-guide/cgroup-v2.rst).

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use runhcs_compute::Result;

use super::limits::Limits;
use super::{device_filter, files};
use crate::error::Context;
use crate::proc::read_short;
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
    path_of("self")
}

/// A process's group, by its pid.
pub(crate) fn path_of(process: &str) -> io::Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.map(PathBuf::from).ok_or_else(|| io::Error::other("it names no version 2 group"))
}

/// Makes the group, with every controller there is; [`limit`] then sets its limits.
pub(crate) fn create(path: &Path) -> Result<()> {
    files::make_group(path)?;
    enable_controllers(path);
    Ok(())
}

/// Sets the limits of a group that exists.
pub(crate) fn limit(path: &Path, limits: &Limits) -> Result<()> {
    limits.write(|_| Some(path.to_owned()))?;
    let Some(rules) = &limits.devices else { return Ok(()) };
    let directory = files::open_directory(path).context(|| format!("open {}", path.display()))?;
    device_filter::attach(directory.as_fd(), rules)
        .context(|| format!("restrict the devices of cgroup {}", path.display()))
}

/// Enables, from the top down, every controller there is for the group. A controller that can't
/// be enabled somewhere is noticed when a limit needs it.
fn enable_controllers(path: &Path) {
    let Ok(relative) = path.strip_prefix(super::MOUNT_POINT) else { return };
    let mut group = PathBuf::from(super::MOUNT_POINT);
    for part in relative.components() {
        let Ok(controllers) = fs::read_to_string(group.join("cgroup.controllers")) else { return };
        let control = group.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&control).unwrap_or_default();
        let missing: Vec<String> = controllers
            .split_whitespace()
            .filter(|name| !enabled.split_whitespace().any(|other| other == *name))
            .map(|name| format!("+{name}"))
            .collect();
        // All at once is quick; one that can't be enabled must not keep the others from it.
        if !missing.is_empty() && fs::write(&control, missing.join(" ")).is_err() {
            for controller in missing {
                let _ = fs::write(&control, controller);
            }
        }
        group.push(part);
    }
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
    match read_short(path.join("cgroup.freeze")) {
        Ok(state) => Ok(state.trim() == "1"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The container's own group, where the mount says.
pub(crate) fn mount(path: &Path, root: &Root, mount: &PlannedMount<'_>) -> Result<()> {
    let tree = clone_tree(path, Bind::Shallow)?;
    mount.attach(&tree, &root.directory(&mount.destination)?)
}
