//! Control groups of ordinary users: used where the caller may make them, done without where not
//! and where nothing needs them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use runhcs_compute::{ContainerId, Result};
use runhcs_systemd::Whose;
use rustix::fs::{Access, AtFlags, CWD};

use super::{
    Cgroup, CgroupDriver, CgroupPaths, Limits, MOUNT_POINT, ScopeOptions, systemd, v1, v2,
};
use crate::error::{Context, invalid};
use crate::rootfs::mounts::PlannedMount;
use crate::rootfs::options::attr;
use crate::rootfs::resolve::Root;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub id: &'a ContainerId,
    /// `linux.cgroupsPath`
    pub path: Option<&'a Path>,
    /// `linux.resources`
    pub resources: Option<&'a LinuxResources>,
    pub annotations: Option<&'a HashMap<String, String>>,
    pub driver: CgroupDriver,
    /// Do without control groups if the caller may not make any and nothing needs them.
    pub rootless: bool,
}

/// A container's control groups before they exist.
#[derive(Debug)]
pub(crate) struct Planned {
    pub cgroup: Cgroup,
    /// Set if systemd is to make them.
    pub scope: Option<ScopeOptions>,
    pub limits: Limits,
}

impl Planned {
    fn directories(paths: CgroupPaths, limits: Limits) -> Self {
        Self { cgroup: Cgroup { paths, scope: None }, scope: None, limits }
    }
}

/// The control groups and the limits for a container. With `rootless` there are none if the caller
/// may not make any, and devices aren't restricted: that takes privilege, and what an ordinary
/// user's container may do with a device the user may do anyway.
///
/// # Errors
/// Names the field that is wrong, or that takes control groups which can't be had.
pub(crate) fn plan(request: &Request<'_>) -> Result<Planned> {
    let Request { id, path, resources, rootless, .. } = *request;
    if request.driver == CgroupDriver::Systemd {
        let whose = if rootless { Whose::User } else { Whose::System };
        let (cgroup, scope, limits) = systemd::plan(request, whose, !rootless)?;
        return Ok(Planned { cgroup, scope: Some(scope), limits });
    }
    let paths = CgroupPaths::new(id, path)?;
    if !rootless {
        let limits = Limits::parse(&paths, resources)?;
        return Ok(Planned::directories(paths, limits));
    }
    let Some(reason) = obstacle(&paths) else {
        let mut limits = Limits::parse(&paths, resources)?;
        limits.devices = None;
        return Ok(Planned::directories(paths, limits));
    };
    if let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) {
        return Err(invalid("linux.cgroupsPath", format!("{}: {reason}", path.display())));
    }
    if let Some(name) = resources.and_then(first_limit) {
        return Err(invalid(format!("linux.resources.{name}"), reason));
    }
    Ok(Planned::directories(CgroupPaths::None, Limits::default()))
}

/// The first limit that is asked for, apart from devices.
fn first_limit(resources: &LinuxResources) -> Option<String> {
    let value = serde_json::to_value(resources).ok()?;
    let mut names: Vec<&String> = value.as_object()?.keys().collect();
    names.sort();
    names.into_iter().find(|name| *name != "devices").cloned()
}

/// Why the caller can't make the groups; `None` if it can.
fn obstacle(paths: &CgroupPaths) -> Option<String> {
    let denied = |path: &Path| {
        format!(
            "this user may not make control groups in {}; have cgroup version 2 delegated to the \
             user (systemd: `Delegate=yes` for user@.service), or ask for no limits",
            path.display()
        )
    };
    match paths {
        CgroupPaths::None => Some("no cgroup hierarchy is mounted on this system".into()),
        CgroupPaths::V1(paths) => {
            paths.iter().map(|(_, path)| existing(path)).find(|path| !is_writable(path)).map(denied)
        }
        CgroupPaths::V2(path) => {
            let parent = existing(path);
            // Moving a process takes write access to the nearest group above both places
            // (cgroup-v2.rst, "Delegation Containment").
            let own = Path::new(MOUNT_POINT).join(
                v2::own_path().unwrap_or_default().strip_prefix("/").unwrap_or(Path::new("")),
            );
            let common = common_ancestor(&own, parent).join("cgroup.procs");
            (!is_writable(parent) || !is_writable(&common)).then(|| denied(parent))
        }
    }
}

/// The nearest directory above or at `path` that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(path)
}

fn common_ancestor(one: &Path, two: &Path) -> PathBuf {
    one.components().zip(two.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

fn is_writable(path: &Path) -> bool {
    rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Mounts the caller's groups, which are the container's too, where a `cgroup` mount says; always
/// read-only, for they are not the container's alone.
pub(crate) fn mount_callers(root: &Root, mount: &PlannedMount<'_>) -> Result<()> {
    let mut options = mount.options.clone();
    options.attributes.set |= attr::RDONLY;
    options.attributes.clear &= !attr::RDONLY;
    let mount =
        PlannedMount { destination: mount.destination.clone(), kind: mount.kind.clone(), options };
    if v2::is_mounted(Path::new(MOUNT_POINT)) {
        let own = v2::own_path().context(|| "read /proc/self/cgroup".into())?;
        let path = Path::new(MOUNT_POINT).join(own.strip_prefix("/").unwrap_or(&own));
        return v2::mount(&path, root, &mount);
    }
    let hierarchies = v1::hierarchies().context(|| "find the cgroup hierarchies".into())?;
    if hierarchies.is_empty() {
        return Err(invalid(
            "mounts",
            "a cgroup mount was asked for, but no cgroup hierarchy is mounted on this system",
        ));
    }
    let own = hierarchies.into_iter().map(|hierarchy| {
        let own = hierarchy.own_path.strip_prefix("/").unwrap_or(&hierarchy.own_path).to_owned();
        (hierarchy.controllers, hierarchy.mount_point.join(own))
    });
    v1::mount(&own.collect::<Vec<_>>(), root, &mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_limit_is_named_and_devices_are_none() {
        let first = |json: &str| first_limit(&serde_json::from_str(json).unwrap());
        assert_eq!(first(r#"{"devices":[{"allow":false}]}"#), None);
        assert_eq!(first(r#"{"pids":{"limit":5},"memory":{"limit":5}}"#).unwrap(), "memory");
    }

    #[test]
    fn common_ancestors() {
        let common = |a: &str, b: &str| common_ancestor(Path::new(a), Path::new(b));
        assert_eq!(common("/c/a/b", "/c/a/d/e"), Path::new("/c/a"));
        assert_eq!(common("/c/ab", "/c/a"), Path::new("/c"));
    }
}
