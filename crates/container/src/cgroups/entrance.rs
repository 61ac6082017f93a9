//! The way of a process into control groups.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Component, Path, PathBuf};

use runhcs_compute::{Error, Result};
use serde::{Deserialize, Serialize};

use super::{Cgroup, CgroupPaths, MOUNT_POINT, SystemdScope, files, v1, v2};
use crate::channel::Channel;
use crate::error::Context;
use crate::{Init, rights};

/// Where in a container's control groups a further process is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ExecCgroup {
    /// In the container's own groups or, where those can't hold processes because they have been
    /// divided, in the group of its init.
    #[default]
    Container,
    /// In a group below, of the same path in every hierarchy.
    Below(PathBuf),
    /// In groups below, by version 1's controllers; for the others in the container's own.
    ByController(Vec<(String, PathBuf)>),
}

/// How a process comes into control groups.
#[derive(Debug, Default)]
pub(crate) struct WayIn {
    /// The group of version 2 into which it can be cloned.
    pub target: Option<OwnedFd>,
    /// The groups of version 1, which it enters itself.
    pub entrances: Entrances,
}

impl Cgroup {
    /// The way for a further process. Of a user's scope there is none: [`Self::attach`] puts the
    /// process into it.
    pub(crate) fn way_in(&self, place: &ExecCgroup, init: &Init) -> Result<WayIn> {
        if self.users_scope().is_some() {
            return Ok(WayIn::default());
        }
        let found = match (&self.paths, place) {
            (CgroupPaths::V2(path), ExecCgroup::Container) => {
                return WayIn::into(&container_group(path, init));
            }
            (CgroupPaths::V1(paths), ExecCgroup::Container) => return WayIn::into_each(paths),
            (CgroupPaths::V2(path), ExecCgroup::Below(sub)) => WayIn::into(&below(path, sub)?),
            (CgroupPaths::V1(paths), ExecCgroup::Below(sub)) => {
                let below =
                    |(name, path): &(String, PathBuf)| Ok((name.clone(), below(path, sub)?));
                WayIn::into_each(&paths.iter().map(below).collect::<Result<Vec<_>>>()?)
            }
            (CgroupPaths::V1(paths), ExecCgroup::ByController(subs)) => {
                WayIn::into_each(&by_controller(paths, subs)?)
            }
            (CgroupPaths::V2(_), ExecCgroup::ByController(_)) => {
                return Err(Error::Unsupported(
                    "this system has cgroup version 2: --cgroup takes a path without controllers"
                        .into(),
                ));
            }
            (CgroupPaths::None, ExecCgroup::Container) => return Ok(WayIn::default()),
            (CgroupPaths::None, _) => {
                return Err(Error::Unsupported("the container has no control groups".into()));
            }
        };
        // The words are runc's.
        found.context(|| "error adding pid to cgroups".into())
    }

    /// Has systemd put a process into a user's scope, which an ordinary user can't by itself. Does
    /// nothing for other groups.
    pub(crate) fn attach(&self, pid: u32, place: &ExecCgroup) -> Result<()> {
        let Some(scope) = self.users_scope() else { return Ok(()) };
        let path = match place {
            ExecCgroup::Container => Path::new(""),
            ExecCgroup::Below(sub) => check(sub)?,
            ExecCgroup::ByController(_) => {
                return Err(Error::Unsupported(
                    "this container's scope has no controllers apart: --cgroup takes a path".into(),
                ));
            }
        };
        scope.attach(pid, path)
    }

    fn users_scope(&self) -> Option<&SystemdScope> {
        self.scope.as_ref().filter(|scope| scope.is_users())
    }
}

/// The container's group; its init's if processes can be in groups below only ("No Internal
/// Process Constraint" in cgroup-v2.rst).
fn container_group(path: &Path, init: &Init) -> PathBuf {
    let divided = std::fs::read_to_string(path.join("cgroup.subtree_control"))
        .is_ok_and(|controllers| !controllers.trim().is_empty());
    let of_init = || {
        let own = v2::path_of(&init.pid.to_string()).ok()?;
        let group = Path::new(MOUNT_POINT).join(own.strip_prefix("/").ok()?);
        group.starts_with(path).then_some(group)
    };
    divided.then(of_init).flatten().unwrap_or_else(|| path.to_owned())
}

fn by_controller(
    paths: &[(String, PathBuf)],
    subs: &[(String, PathBuf)],
) -> Result<Vec<(String, PathBuf)>> {
    let mut chosen = paths.to_vec();
    for (controller, sub) in subs {
        let at = paths.iter().position(|(names, _)| names.split(',').any(|n| n == controller));
        let Some(at) = at else {
            return Err(Error::Unsupported(format!("unknown controller {controller}")));
        };
        chosen[at].1 = below(&paths[at].1, sub)?;
    }
    Ok(chosen)
}

fn below(path: &Path, sub: &Path) -> Result<PathBuf> {
    Ok(path.join(check(sub)?))
}

/// A path that leads to a group below, relative. A leading `/` stands for the container's own.
fn check(sub: &Path) -> Result<&Path> {
    let relative = sub.strip_prefix("/").unwrap_or(sub);
    if relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Ok(relative);
    }
    Err(Error::Unsupported(format!("bad sub cgroup path: {}", sub.display())))
}

impl WayIn {
    fn into(group: &Path) -> Result<Self> {
        Ok(Self { target: Some(files::open_group(group)?), entrances: Entrances::default() })
    }

    /// In hybrid mode the version 2 hierarchy is one of them.
    fn into_each(paths: &[(String, PathBuf)]) -> Result<Self> {
        let unified = v1::directory(paths, v1::UNIFIED);
        let target = unified.map(files::open_group).transpose()?;
        Ok(Self { target, entrances: Entrances::open(paths)? })
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
    pub(super) fn open(paths: &[(String, PathBuf)]) -> Result<Self> {
        let open = |path: PathBuf| {
            let file = std::fs::OpenOptions::new().write(true).open(&path);
            let file = file.context(|| format!("open {}", path.display()))?;
            Ok((path, file))
        };
        files_of(paths).map(open).collect::<Result<_>>().map(Self)
    }

    /// Hands them on, and with them the word that the groups are as they are to be.
    pub(crate) fn send(&self, channel: &mut Channel) -> Result<()> {
        channel.go(0)?;
        for files in self.0.chunks(rights::MOST) {
            let files: Vec<_> = files.iter().map(|(_, file)| file.as_fd()).collect();
            channel.send_descriptors(&files).context(|| "hand control groups on".into())?;
        }
        Ok(())
    }

    /// Waits for those of a container's own groups.
    pub(crate) fn receive(cgroup: &Cgroup, channel: &mut Channel) -> Result<Self> {
        channel.wait()?;
        let paths: Vec<PathBuf> = match &cgroup.paths {
            // systemd has moved the process there.
            CgroupPaths::V1(paths) if cgroup.scope.is_none() => files_of(paths).collect(),
            _ => Vec::new(),
        };
        let mut found = Vec::with_capacity(paths.len());
        for paths in paths.chunks(rights::MOST) {
            let files = channel.descriptors(paths.len())?.into_iter().map(File::from);
            found.extend(paths.iter().cloned().zip(files));
        }
        Ok(Self(found))
    }

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

/// The files by which threads move between groups, of each hierarchy of version 1.
fn files_of(paths: &[(String, PathBuf)]) -> impl Iterator<Item = PathBuf> {
    let version_1 = paths.iter().filter(|(controllers, _)| controllers != v1::UNIFIED);
    version_1.map(|(_, path)| path.join("tasks"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_below_only() {
        for (sub, expected) in [("/", ""), ("a/b", "a/b"), ("/a", "a"), ("", "")] {
            assert_eq!(check(Path::new(sub)).unwrap(), Path::new(expected), "{sub}");
        }
        for sub in ["..", "a/../b", "//../x"] {
            assert!(check(Path::new(sub)).is_err(), "{sub}");
        }
    }

    #[test]
    fn controllers_have_places_of_their_own() {
        let path = |name: &str| PathBuf::from("/c").join(name);
        let paths =
            vec![("cpu,cpuacct".to_owned(), path("cpu")), ("memory".to_owned(), path("memory"))];
        let found = by_controller(&paths, &[("cpuacct".into(), "x".into())]).unwrap();
        assert_eq!(
            found,
            [("cpu,cpuacct".into(), path("cpu/x")), ("memory".into(), path("memory"))]
        );
        assert!(by_controller(&paths, &[("pids".into(), "x".into())]).is_err());
        // Of controllers that share a hierarchy, both name the same group.
        let twice = [("cpu".into(), "x".into()), ("cpuacct".into(), "x".into())];
        assert_eq!(by_controller(&paths, &twice).unwrap(), found);
    }
}
