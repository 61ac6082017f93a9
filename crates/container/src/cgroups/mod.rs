//! Control groups: where a container's processes are counted, limited, frozen and killed.
//!
//! [`CgroupPaths`] says where they are going to be and is stored before they exist, as is the
//! [`SystemdScope`] if systemd is to make them; [`Cgroup`] works on them.

mod complete;
mod delegation;
mod device_filter;
mod device_rules;
mod entrance;
mod files;
mod limits;
mod oom;
mod ownership;
mod stats;
mod systemd;
mod v1;
mod v1_limits;
mod v2;
mod v2_limits;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use runhcs_compute::{ContainerId, Result};
use serde::{Deserialize, Serialize};

use crate::error::{Context, invalid};
use crate::rootfs::mounts::PlannedMount;
use crate::rootfs::resolve::Root;

pub(crate) use delegation::{Request, plan};
pub use entrance::ExecCgroup;
pub(crate) use entrance::{Entrances, WayIn};
pub(crate) use limits::Limits;
pub(crate) use oom::OomSource;
pub use oom::{MemoryEvents, OomCounts};
pub use systemd::SystemdScope;
pub(crate) use systemd::{ScopeOptions, plan as plan_scope};

/// Where a system keeps its control groups.
const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// Who makes a container's control groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// The engine, as directories.
    #[default]
    Directories,
    /// systemd, as a scope.
    Systemd,
}

/// The directories of a container's control groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum CgroupPaths {
    /// Version 1: a directory for each hierarchy, under its controllers' names (`cpu,cpuacct`).
    V1(Vec<(String, PathBuf)>),
    /// Version 2: one directory.
    V2(PathBuf),
    /// The container stays in its creator's: the system has no control groups, or an ordinary
    /// user created it.
    None,
}

impl CgroupPaths {
    /// Works out the directories for `linux.cgroupsPath`: absolute below the hierarchies' roots,
    /// relative (and by default the id) below the caller's own control groups, as runc has it.
    pub(crate) fn new(id: &ContainerId, configured: Option<&Path>) -> Result<Self> {
        let path = configured.filter(|path| !path.as_os_str().is_empty());
        let path = path.map_or_else(|| PathBuf::from(id.as_str()), Path::to_owned);
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(invalid("linux.cgroupsPath", format!("{} holds `..`", path.display())));
        }
        if path.to_str().is_some_and(|text| text.matches(':').count() == 2) {
            return Err(invalid(
                "linux.cgroupsPath",
                "has the form slice:prefix:name, which is systemd's: it goes with --systemd-cgroup",
            ));
        }
        if path == Path::new("/") {
            return Err(invalid("linux.cgroupsPath", "can't be the root of the hierarchy"));
        }
        Self::at(&path)
    }

    /// The directories for a path: absolute below the hierarchies' roots, relative below the
    /// caller's own control groups.
    fn at(path: &Path) -> Result<Self> {
        if v2::is_mounted(Path::new(MOUNT_POINT)) {
            let own = v2::own_path().context(|| "read /proc/self/cgroup".into())?;
            return Ok(Self::V2(files::below(Path::new(MOUNT_POINT), &own, path)));
        }
        let hierarchies = v1::hierarchies().context(|| "find the cgroup hierarchies".into())?;
        if hierarchies.is_empty() {
            return Ok(Self::None);
        }
        let paths = hierarchies
            .into_iter()
            .map(|h| (h.controllers, files::below(&h.mount_point, &h.own_path, path)));
        Ok(Self::V1(paths.collect()))
    }

    /// The directories for a path as processes' `/proc/<pid>/cgroup` has it, which needn't be one
    /// from the root of what is mounted.
    fn of_hierarchy(path: &Path) -> Result<Self> {
        if v2::is_mounted(Path::new(MOUNT_POINT)) {
            return Self::at(path);
        }
        let hierarchies = v1::hierarchies().context(|| "find the cgroup hierarchies".into())?;
        if hierarchies.is_empty() {
            return Ok(Self::None);
        }
        let below = |h: &v1::Hierarchy| {
            let shown = path.strip_prefix(&h.root).or(path.strip_prefix("/")).unwrap_or(path);
            (h.controllers.clone(), h.mount_point.join(shown))
        };
        Ok(Self::V1(hierarchies.iter().map(below).collect()))
    }
}

/// A container's control groups.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    pub paths: CgroupPaths,
    /// What systemd knows them as, if it makes them.
    pub scope: Option<SystemdScope>,
}

impl Cgroup {
    /// Refuses groups that others use: their processes would be limited, frozen and killed with
    /// the container's.
    pub(crate) fn refuse_used(&self) -> Result<()> {
        let Some(path) = self.counting().filter(|path| path.exists()) else { return Ok(()) };
        let used = self.processes()?.len();
        if used > 0 {
            return Err(invalid(
                "linux.cgroupsPath",
                format!(
                    "the container's cgroup is not empty: {used} process(es) found in {}",
                    path.display()
                ),
            ));
        }
        if self.is_frozen()? {
            return Err(invalid(
                "linux.cgroupsPath",
                format!("container's cgroup unexpectedly frozen: {}", path.display()),
            ));
        }
        Ok(())
    }

    /// Makes the directories and sets the limits, and returns the container's way in. systemd makes
    /// them only around a process: then [`Self::surround`] does all of that later.
    pub(crate) fn create(&self, limits: &Limits) -> Result<WayIn> {
        let target = self.create_target()?;
        Ok(WayIn { target, entrances: self.create_further(limits)? })
    }

    /// The first half of [`Self::create`]: makes the group that a process can be cloned into, which
    /// version 2 has, also in hybrid mode.
    pub(crate) fn create_target(&self) -> Result<Option<OwnedFd>> {
        if self.scope.is_some() {
            return Ok(None);
        }
        let group = match &self.paths {
            CgroupPaths::V1(paths) => {
                let Some(group) = v1::directory(paths, v1::UNIFIED) else { return Ok(None) };
                files::make_group(group)?;
                group
            }
            CgroupPaths::V2(group) => {
                v2::create(group)?;
                group
            }
            CgroupPaths::None => return Ok(None),
        };
        files::open_group(group).map(Some)
    }

    /// The second half: makes what the first hasn't, and sets the limits.
    pub(crate) fn create_further(&self, limits: &Limits) -> Result<Entrances> {
        if self.scope.is_some() {
            return Ok(Entrances::default());
        }
        let CgroupPaths::V1(paths) = &self.paths else {
            self.limit(limits)?;
            return Ok(Entrances::default());
        };
        v1::create(paths)?;
        self.limit(limits)?;
        Entrances::open(paths)
    }

    fn make(&self) -> Result<()> {
        match &self.paths {
            CgroupPaths::V1(paths) => v1::create(paths),
            CgroupPaths::V2(path) => v2::create(path),
            CgroupPaths::None => Ok(()),
        }
    }

    /// Has systemd make the groups around a process, if it is to make them, and sets the limits.
    pub(crate) fn surround(
        &self,
        id: &ContainerId,
        pid: u32,
        options: Option<&ScopeOptions>,
        limits: &Limits,
    ) -> Result<()> {
        let (Some(scope), Some(options)) = (&self.scope, options) else { return Ok(()) };
        scope.start(id, pid, matches!(self.paths, CgroupPaths::V2(_)), options)?;
        self.make()?;
        if let CgroupPaths::V1(paths) = &self.paths {
            // systemd puts processes into the hierarchies that it uses, and there are others.
            for (_, path) in paths {
                files::write(&path.join("cgroup.procs"), &pid.to_string())?;
            }
        }
        self.limit(limits)
    }

    /// Gives the group to a user of the host, on version 2.
    pub(crate) fn give_to(&self, uid: u32) -> Result<()> {
        match &self.paths {
            CgroupPaths::V2(path) => ownership::give(path, uid),
            CgroupPaths::V1(_) | CgroupPaths::None => Ok(()),
        }
    }

    /// Sets limits.
    pub(crate) fn limit(&self, limits: &Limits) -> Result<()> {
        match &self.paths {
            CgroupPaths::V1(paths) => v1::limit(paths, limits),
            CgroupPaths::V2(path) => v2::limit(path, limits),
            CgroupPaths::None => Ok(()),
        }
    }

    /// Changes limits, systemd's first.
    pub(crate) fn update(&self, mut limits: Limits) -> Result<()> {
        limits.check(&self.paths)?;
        if let Some(scope) = &self.scope {
            scope.update(&mut limits)?;
        }
        self.limit(&limits)
    }

    /// The pids of all processes in the groups and below, without those that have ended.
    pub(crate) fn processes(&self) -> Result<Vec<u32>> {
        let Some(path) = self.counting() else { return Ok(Vec::new()) };
        let mut pids = Vec::new();
        files::for_each_group(&path, &mut |group| {
            pids.extend(files::read_pids(&group.join("cgroup.procs"))?);
            Ok(())
        })
        .context(|| format!("list the processes of cgroup {}", path.display()))?;
        Ok(pids)
    }

    /// Freezes or thaws the container and waits until it is so.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        match &self.paths {
            CgroupPaths::V1(_) => match self.v1_directory("freezer") {
                Some(path) => v1::freeze(&path, frozen),
                None => Err(no_freezer()),
            },
            CgroupPaths::V2(path) => v2::freeze(path, frozen),
            CgroupPaths::None => Err(no_freezer()),
        }
    }

    /// Whether the container is frozen.
    pub(crate) fn is_frozen(&self) -> Result<bool> {
        let state = match &self.paths {
            CgroupPaths::V1(_) => self.v1_directory("freezer").map(|path| v1::is_frozen(&path)),
            CgroupPaths::V2(path) => Some(v2::is_frozen(path)),
            CgroupPaths::None => None,
        };
        state.unwrap_or(Ok(false)).context(|| "read the freezer's state".into())
    }

    /// The group by which others than this engine can freeze the container.
    pub(crate) fn freezer(&self) -> Option<PathBuf> {
        match &self.paths {
            CgroupPaths::V1(_) => self.v1_directory("freezer"),
            CgroupPaths::V2(path) => Some(path.clone()),
            CgroupPaths::None => None,
        }
    }

    /// Whether the kernel kills a whole group at once (`cgroup.kill`, Linux 5.14).
    pub(crate) fn kill_at_once(&self) -> bool {
        matches!(&self.paths, CgroupPaths::V2(path)
            if std::fs::write(path.join("cgroup.kill"), "1").is_ok())
    }

    /// Removes the groups, with those the container made below. Missing ones are no error.
    pub(crate) fn remove(&self) -> Result<()> {
        let stopped = self.scope.as_ref().map_or(Ok(()), SystemdScope::stop);
        for path in self.directories() {
            files::remove_tree(&path).context(|| format!("remove cgroup {}", path.display()))?;
        }
        if let Err(error) = stopped {
            // Without its groups a scope ends by itself; systemd may have ended, too.
            tracing::warn!("{}", crate::error::chain(&error));
        }
        Ok(())
    }

    /// Mounts the container's own groups at the place a `cgroup` mount names.
    pub(crate) fn mount(&self, root: &Root, mount: &PlannedMount<'_>) -> Result<()> {
        match &self.paths {
            CgroupPaths::V1(paths) => v1::mount(paths, root, mount),
            CgroupPaths::V2(path) => v2::mount(path, root, mount),
            CgroupPaths::None => delegation::mount_callers(root, mount),
        }
    }

    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        match &self.paths {
            CgroupPaths::V1(paths) => paths.iter().map(|(_, path)| path.clone()).collect(),
            CgroupPaths::V2(path) => vec![path.clone()],
            CgroupPaths::None => Vec::new(),
        }
    }

    /// The group whose list of processes is complete.
    fn counting(&self) -> Option<PathBuf> {
        match &self.paths {
            CgroupPaths::V1(paths) => ["freezer", "pids", "memory", "devices"]
                .iter()
                .find_map(|name| self.v1_directory(name))
                .or_else(|| paths.first().map(|(_, path)| path.clone())),
            CgroupPaths::V2(path) => Some(path.clone()),
            CgroupPaths::None => None,
        }
    }

    fn v1_directory(&self, controller: &str) -> Option<PathBuf> {
        match &self.paths {
            CgroupPaths::V1(paths) => v1::directory(paths, controller).map(Path::to_owned),
            _ => None,
        }
    }
}

fn no_freezer() -> runhcs_compute::Error {
    runhcs_compute::Error::Unsupported(
        "the container has no control group with a freezer to pause it with".into(),
    )
}

/// Waits, asking again at growing intervals, until `done` or for two seconds.
fn wait_until(mut done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let mut pause = std::time::Duration::from_micros(50);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while !done()? {
        if std::time::Instant::now() > deadline {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(std::time::Duration::from_millis(10));
    }
    Ok(())
}
