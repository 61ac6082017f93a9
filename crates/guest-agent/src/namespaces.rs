//! The namespaces of this VM's containers, held open as long as a container exists, so that others
//! can join them when its first process is gone, and never a stranger's that has its pid by then.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use runhcs_protocol::NAMESPACES;
use runhcs_protocol::guest::Failure;

/// The kinds, by their files in `/proc/<pid>/ns` (namespaces(7)). A namespace of mounts would keep
/// what is mounted in it.
const KINDS: [&str; 6] = ["ipc", "net", "pid", "time", "user", "uts"];

/// A container's namespaces.
#[derive(Debug)]
pub struct Namespaces(HashMap<&'static str, File>);

impl Namespaces {
    /// Those that a process is in.
    pub fn of(pid: u32) -> Result<Self, Failure> {
        let open = |kind| {
            let path = format!("/proc/{pid}/ns/{kind}");
            match File::open(&path) {
                Ok(file) => Ok((kind, file)),
                Err(error) => Err(Failure::Other(vec![format!("open {path}"), error.to_string()])),
            }
        };
        Ok(Self(KINDS.into_iter().map(open).collect::<Result<_, _>>()?))
    }

    /// Where this process, and a child that it forks, find one of them.
    fn path(&self, kind: &str) -> Option<PathBuf> {
        let file = self.0.get(kind)?;
        Some(format!("/proc/self/fd/{}", file.as_raw_fd()).into())
    }
}

/// A container as another one joins it.
#[derive(Clone, Copy, Debug)]
pub struct Joinable<'a> {
    /// Its namespaces.
    pub namespaces: &'a Namespaces,
    /// Whether its first process has ended.
    pub ended: bool,
}

/// Puts paths that can be opened in the place of those that name namespaces of other containers,
/// which `find` is to know by their ids.
///
/// # Errors
/// A container that isn't there, or a namespace that can't be joined.
pub fn resolve<T>(
    spec: &mut Spec,
    find: impl Fn(&str) -> Option<T>,
    joinable: impl Fn(&T) -> Joinable<'_>,
) -> Result<(), Failure> {
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    for namespace in linux.namespaces_mut().iter_mut().flatten() {
        let path = namespace.path().clone().unwrap_or_default();
        let Ok(named) = path.strip_prefix(NAMESPACES) else { continue };
        let malformed = || Failure::Other(vec![format!("malformed path {}", path.display())]);
        let (id, kind) = split(named).ok_or_else(malformed)?;
        let found = find(id).ok_or_else(|| {
            Failure::Other(vec![format!(
                "linux.namespaces: container {id}, whose {kind} namespace is to be joined, is not \
                 in the virtual machine"
            )])
        })?;
        let Joinable { namespaces, ended } = joinable(&found);
        if ended && kind == "pid" {
            return Err(Failure::Other(vec![format!(
                "linux.namespaces: the pid namespace of container {id} has ended with its first \
                 process (pid_namespaces(7))"
            )]));
        }
        let path = namespaces.path(kind).ok_or_else(|| {
            Failure::Unsupported(format!(
                "linux.namespaces: the {kind} namespace of container {id} can't be joined in a \
                 virtual machine"
            ))
        })?;
        namespace.set_path(Some(path));
    }
    Ok(())
}

fn split(named: &Path) -> Option<(&str, &str)> {
    let (id, kind) = named.to_str()?.split_once('/')?;
    (!kind.contains('/')).then_some((id, kind))
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxBuilder, LinuxNamespaceBuilder, LinuxNamespaceType};

    use super::*;

    fn joined(kind: LinuxNamespaceType, path: &str, ended: bool) -> Result<PathBuf, String> {
        let namespace = LinuxNamespaceBuilder::default().typ(kind).path(path).build().unwrap();
        let linux = LinuxBuilder::default().namespaces(vec![namespace]).build().unwrap();
        let mut spec = Spec::default();
        spec.set_linux(Some(linux));
        let held = std::rc::Rc::new(Namespaces::of(std::process::id()).unwrap());
        let find = |id: &str| (id == "c").then(|| held.clone());
        resolve(&mut spec, find, |namespaces| Joinable { namespaces, ended })
            .map_err(|failure| failure.to_string())?;
        let path = spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap()[0].path().clone();
        let path = path.unwrap();
        // As long as they are held the path leads to them.
        assert!(!path.starts_with("/proc/self/fd") || path.exists());
        Ok(path)
    }

    #[test]
    fn what_is_held_can_be_joined() {
        let path = joined(LinuxNamespaceType::Ipc, "/run/runhcs/namespaces/c/ipc", true).unwrap();
        assert!(path.starts_with("/proc/self/fd"), "{path:?}");
        let own = joined(LinuxNamespaceType::Network, "/proc/1/ns/net", false).unwrap();
        assert_eq!(own, Path::new("/proc/1/ns/net"));
        joined(LinuxNamespaceType::Pid, "/run/runhcs/namespaces/c/pid", false).unwrap();
    }

    #[test]
    fn what_is_gone_is_named() {
        let error = joined(LinuxNamespaceType::Pid, "/run/runhcs/namespaces/c/pid", true);
        assert!(error.unwrap_err().contains("has ended with its first process"));
        let error = joined(LinuxNamespaceType::Ipc, "/run/runhcs/namespaces/x/ipc", false);
        assert!(error.unwrap_err().contains("container x"));
        let error = joined(LinuxNamespaceType::Mount, "/run/runhcs/namespaces/c/mnt", false);
        assert!(error.unwrap_err().contains("the mnt namespace of container c"));
        for path in ["/run/runhcs/namespaces", "/run/runhcs/namespaces/c/ipc/x"] {
            joined(LinuxNamespaceType::Ipc, path, false).unwrap_err();
        }
    }
}
