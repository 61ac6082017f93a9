//! Control groups: where a container's processes are counted, limited, frozen and killed.
//!
//! [`CgroupPaths`] says where they are going to be and is stored before they exist; [`Cgroup`]
//! works on them.

mod complete;
mod delegation;
mod device_filter;
mod device_rules;
mod files;
mod limits;
mod oom;
mod stats;
mod v1;
mod v1_limits;
mod v2;
mod v2_limits;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Component, Path, PathBuf};

use runhcs_compute::{ContainerId, Result};
use serde::{Deserialize, Serialize};

use crate::error::{Context, invalid};
pub(crate) use delegation::plan;
pub(crate) use limits::Limits;
pub(crate) use oom::OomSource;

use crate::rootfs::mounts::PlannedMount;
use crate::rootfs::resolve::Root;

/// Where a system keeps its control groups.
const MOUNT_POINT: &str = "/sys/fs/cgroup";

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
                "has the form slice:prefix:name, which is systemd's; this runtime manages cgroup \
                 directories itself",
            ));
        }
        if path == Path::new("/") {
            return Err(invalid("linux.cgroupsPath", "can't be the root of the hierarchy"));
        }
        if v2::is_mounted(Path::new(MOUNT_POINT)) {
            let own = v2::own_path().context(|| "read /proc/self/cgroup".into())?;
            return Ok(Self::V2(files::below(Path::new(MOUNT_POINT), &own, &path)));
        }
        let hierarchies = v1::hierarchies().context(|| "find the cgroup hierarchies".into())?;
        if hierarchies.is_empty() {
            return Ok(Self::None);
        }
        let paths = hierarchies
            .into_iter()
            .map(|h| (h.controllers, files::below(&h.mount_point, &h.own_path, &path)));
        Ok(Self::V1(paths.collect()))
    }
}

/// A container's control groups.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup(pub CgroupPaths);

impl Cgroup {
    /// Refuses groups that others use: their processes would be limited, frozen and killed with
    /// the container's.
    pub(crate) fn refuse_used(&self) -> Result<()> {
        let Some(path) = self.counting().filter(|path| path.exists()) else { return Ok(()) };
        let used = self.processes()?.len();
        if used > 0 {
            return Err(invalid(
                "linux.cgroupsPath",
                format!("cgroup {} exists and has {used} process(es) in it", path.display()),
            ));
        }
        if self.is_frozen()? {
            return Err(invalid(
                "linux.cgroupsPath",
                format!("cgroup {} exists and is frozen", path.display()),
            ));
        }
        Ok(())
    }

    /// Makes the directories and sets the limits.
    pub(crate) fn create(&self, limits: &Limits) -> Result<()> {
        match &self.0 {
            CgroupPaths::V1(paths) => v1::create(paths)?,
            CgroupPaths::V2(path) => v2::create(path)?,
            CgroupPaths::None => {}
        }
        self.limit(limits)
    }

    /// Sets limits.
    pub(crate) fn limit(&self, limits: &Limits) -> Result<()> {
        match &self.0 {
            CgroupPaths::V1(paths) => v1::limit(paths, limits),
            CgroupPaths::V2(path) => v2::limit(path, limits),
            CgroupPaths::None => Ok(()),
        }
    }

    /// The descriptor a new process can be cloned into (version 2 only).
    pub(crate) fn clone_target(&self) -> Result<Option<OwnedFd>> {
        let CgroupPaths::V2(path) = &self.0 else { return Ok(None) };
        files::open_directory(path).map(Some).context(|| format!("open cgroup {}", path.display()))
    }

    /// The way into the groups for a process that can't be cloned into them (version 1).
    pub(crate) fn entrances(&self) -> Result<Entrances> {
        let CgroupPaths::V1(paths) = &self.0 else { return Ok(Entrances(Vec::new())) };
        let open = |(_, path): &(String, PathBuf)| {
            let path = path.join("tasks");
            let file = std::fs::OpenOptions::new().write(true).open(&path);
            let file = file.context(|| format!("open {}", path.display()))?;
            Ok((path, file))
        };
        paths.iter().map(open).collect::<Result<_>>().map(Entrances)
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
        match &self.0 {
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
        let state = match &self.0 {
            CgroupPaths::V1(_) => self.v1_directory("freezer").map(|path| v1::is_frozen(&path)),
            CgroupPaths::V2(path) => Some(v2::is_frozen(path)),
            CgroupPaths::None => None,
        };
        state.unwrap_or(Ok(false)).context(|| "read the freezer's state".into())
    }

    /// Whether the kernel kills a whole group at once (`cgroup.kill`, Linux 5.14).
    pub(crate) fn kill_at_once(&self) -> bool {
        matches!(&self.0, CgroupPaths::V2(path)
            if std::fs::write(path.join("cgroup.kill"), "1").is_ok())
    }

    /// Removes the groups, with those the container made below. Missing ones are no error.
    pub(crate) fn remove(&self) -> Result<()> {
        for path in self.directories() {
            files::remove_tree(&path).context(|| format!("remove cgroup {}", path.display()))?;
        }
        Ok(())
    }

    /// Mounts the container's own groups at the place a `cgroup` mount names.
    pub(crate) fn mount(&self, root: &Root, mount: &PlannedMount<'_>) -> Result<()> {
        match &self.0 {
            CgroupPaths::V1(paths) => v1::mount(paths, root, mount),
            CgroupPaths::V2(path) => v2::mount(path, root, mount),
            CgroupPaths::None => delegation::mount_callers(root, mount),
        }
    }

    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        match &self.0 {
            CgroupPaths::V1(paths) => paths.iter().map(|(_, path)| path.clone()).collect(),
            CgroupPaths::V2(path) => vec![path.clone()],
            CgroupPaths::None => Vec::new(),
        }
    }

    /// The group whose list of processes is complete.
    fn counting(&self) -> Option<PathBuf> {
        match &self.0 {
            CgroupPaths::V1(paths) => ["freezer", "pids", "memory", "devices"]
                .iter()
                .find_map(|name| self.v1_directory(name))
                .or_else(|| paths.first().map(|(_, path)| path.clone())),
            CgroupPaths::V2(path) => Some(path.clone()),
            CgroupPaths::None => None,
        }
    }

    fn v1_directory(&self, controller: &str) -> Option<PathBuf> {
        match &self.0 {
            CgroupPaths::V1(paths) => v1::directory(paths, controller).map(Path::to_owned),
            _ => None,
        }
    }
}

/// Open files by which a process with one thread moves itself into control groups.
///
/// Another process's move makes the kernel wait until no process is just forking or ending, which
/// takes milliseconds (`cgroup_procs_write_start` in kernel/cgroup/cgroup.c). A thread that moves
/// itself, by a 0 in `tasks`, waits for nothing; and this process has no other thread.
#[derive(Debug, Default)]
pub(crate) struct Entrances(Vec<(PathBuf, File)>);

impl Entrances {
    /// Moves the calling thread into the groups.
    pub(crate) fn enter(&self) -> Result<()> {
        for (path, file) in &self.0 {
            let mut file: &File = file;
            file.write_all(b"0").context(|| format!("enter the cgroup of {}", path.display()))?;
        }
        Ok(())
    }

    /// The files' descriptors.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.0.iter().map(|(_, file)| file.as_raw_fd())
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
