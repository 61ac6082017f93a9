//! Id-mapped mounts: bind mounts that show other owners than their files have on the file system
//! (mount_setattr(2), "ID-mapped mounts").
//!
//! The kernel takes the privilege over the *file system* for it, which a container in a user
//! namespace of its own lacks. So the creating process opens and maps the sources; the container's
//! init only attaches them.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use runhcs_compute::{Error, Result};
use rustix::mount::MountPropagationFlags;

use super::mount_attr;
use super::mounts::{Kind, PlannedMount, clone_tree};
use super::options::{Bind, Mapped, MountOptions};
use crate::error::{Context, invalid};
use crate::ids::IdMaps;
use crate::user_namespace;

/// What a configuration wants mapped.
#[derive(Debug, Default)]
pub(crate) struct IdMappedMounts(Vec<IdMapped>);

#[derive(Debug)]
struct IdMapped {
    /// Of `mounts`.
    index: usize,
    source: PathBuf,
    bind: Bind,
    mapping: Mapping,
}

/// The mapping of one mount.
#[derive(Debug)]
struct Mapping {
    ids: Ids,
    which: Mapped,
}

#[derive(Debug)]
enum Ids {
    Listed(IdMaps),
    /// Those of an existing user namespace.
    Namespace(PathBuf),
}

/// The mapped trees, by their index in `mounts`.
#[derive(Debug, Default)]
pub(crate) struct Trees(Vec<(usize, OwnedFd)>);

impl Trees {
    pub(crate) fn get(&self, index: usize) -> Option<&OwnedFd> {
        self.0.iter().find(|(other, _)| *other == index).map(|(_, tree)| tree)
    }

    pub(crate) fn extend(&mut self, more: Vec<(usize, OwnedFd)>) {
        self.0.extend(more);
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.0.iter().map(|(_, tree)| tree.as_raw_fd())
    }
}

impl IdMappedMounts {
    /// Finds the mounts that are to be mapped.
    pub(crate) fn new(spec: &Spec, mounts: &[PlannedMount<'_>]) -> Result<Self> {
        let listed = spec.mounts().iter().flatten().zip(mounts).enumerate();
        let mut found = Vec::new();
        for (index, (mount, planned)) in listed {
            let Some(mapping) = Mapping::of(spec, index, mount, planned.options.id_map)? else {
                continue;
            };
            let Kind::Bind { source, bind } = planned.kind else {
                let why = "only bind mounts can be id-mapped";
                return Err(invalid(format!("mounts[{index}]"), why));
            };
            found.push(IdMapped { index, source: source.to_owned(), bind, mapping });
        }
        Ok(Self(found))
    }

    /// Whether `mounts[index]` is one of them.
    pub(super) fn has(&self, index: usize) -> bool {
        self.0.iter().any(|mount| mount.index == index)
    }

    /// Opens and maps their sources in the caller's mount namespace.
    pub(crate) fn open(&self) -> Result<Trees> {
        let open = |mount: &IdMapped| {
            let tree = clone_tree(&mount.source, mount.bind)?;
            mount.mapping.apply(mount.index, tree.as_fd())?;
            let following = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            mount_attr::set_propagation(tree.as_fd(), following)
                .context(|| format!("set the propagation of {}", mount.source.display()))?;
            Ok((mount.index, tree))
        };
        self.0.iter().map(open).collect::<Result<_>>().map(Trees)
    }
}

/// Maps the ids of a detached mount of `mounts[index]`'s source as the configuration says, if it
/// says anything; returns whether it does. For a container in a virtual machine, whose mounts the host maps.
///
/// # Errors
/// Names the field that is wrong, or what keeps the file system from being mapped.
pub fn map_mount(spec: &Spec, index: usize, tree: BorrowedFd<'_>) -> Result<bool> {
    let Some(mount) = spec.mounts().iter().flatten().nth(index) else { return Ok(false) };
    let options = MountOptions::parse(mount.options().iter().flatten().map(String::as_str));
    let Some(mapping) = Mapping::of(spec, index, mount, options.id_map)? else { return Ok(false) };
    if let Ids::Namespace(_) = mapping.ids {
        let why = "needs uidMappings and gidMappings: the user namespace is in the virtual machine";
        return Err(invalid(format!("mounts[{index}].options"), why));
    }
    mapping.apply(index, tree).map(|()| true)
}

impl Mapping {
    fn of(spec: &Spec, index: usize, mount: &Mount, which: Option<Mapped>) -> Result<Option<Self>> {
        let field = format!("mounts[{index}]");
        let (users, groups) = (mount.uid_mappings(), mount.gid_mappings());
        let ids = match (users, groups) {
            (None, None) if which.is_none() => return Ok(None),
            (None, None) => Ids::of_container(spec, &field)?,
            (Some(_), Some(_)) => {
                Ids::Listed(IdMaps::parse(&field, users.as_ref(), groups.as_ref())?)
            }
            (Some(_), None) => {
                return Err(invalid(format!("{field}.gidMappings"), "is needed with uidMappings"));
            }
            (None, Some(_)) => {
                return Err(invalid(format!("{field}.uidMappings"), "is needed with gidMappings"));
            }
        };
        Ok(Some(Self { ids, which: which.unwrap_or(Mapped::Top) }))
    }

    fn apply(&self, index: usize, tree: BorrowedFd<'_>) -> Result<()> {
        let namespace = match &self.ids {
            Ids::Listed(maps) => user_namespace::with(maps)?,
            Ids::Namespace(path) => File::open(path)
                .context(|| format!("open the user namespace {}", path.display()))?
                .into(),
        };
        mount_attr::map_ids(tree, namespace.as_fd(), self.which == Mapped::All).map_err(|error| {
            let why = match error.raw_os_error() {
                Some(libc::EINVAL) => "the file system can't be id-mapped, or is so already",
                Some(libc::EPERM) => "it takes privilege over the file system (CAP_SYS_ADMIN)",
                _ => "",
            };
            let separator = if why.is_empty() { "" } else { ": " };
            Error::failed(
                format!("mounts[{index}]: map the ids of its files"),
                format!("{error}{separator}{why}"),
            )
        })
    }
}

impl Ids {
    /// Those of the container's user namespace.
    fn of_container(spec: &Spec, field: &str) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let mut namespaces =
            linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten();
        let user = namespaces.find(|namespace| namespace.typ() == LinuxNamespaceType::User);
        let Some(user) = user else {
            let why = "an id-mapped mount needs uidMappings and gidMappings, or a user namespace \
                       of the container to take them from";
            return Err(invalid(format!("{field}.options"), why));
        };
        match user.path().as_deref().filter(|path| *path != Path::new("")) {
            Some(path) => Ok(Self::Namespace(path.to_owned())),
            None => Ok(Self::Listed(IdMaps::of_container(spec)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(mount: &str, user_namespace: bool) -> Result<IdMappedMounts> {
        let namespaces = if user_namespace { r#"[{"type":"user"}]"# } else { "[]" };
        let ids = r#"[{"containerID":0,"hostID":1000,"size":10}]"#;
        let json = format!(
            r#"{{"ociVersion":"1.2.0","mounts":[{mount}],"linux":{{"namespaces":{namespaces},
                "uidMappings":{ids},"gidMappings":{ids}}}}}"#
        );
        let spec: Spec = serde_json::from_str(&json).unwrap();
        let mounts = spec.mounts().as_ref().unwrap();
        let planned = PlannedMount::new(0, &mounts[0], Path::new("/root"))?;
        IdMappedMounts::new(&spec, &[planned])
    }

    fn bind(more: &str) -> String {
        format!(r#"{{"destination":"/a","source":"/b","type":"bind",{more}}}"#)
    }

    #[test]
    fn mappings_are_those_of_the_mount_or_of_the_container() {
        let own = r#""uidMappings":[{"containerID":5,"hostID":6,"size":1}],
            "gidMappings":[{"containerID":5,"hostID":6,"size":1}]"#;
        for (mount, user_namespace, count) in [
            (bind(r#""options":["rbind"]"#), true, 0),
            (bind(r#""options":["rbind","idmap"]"#), true, 1),
            (bind(own), false, 1),
        ] {
            assert_eq!(plan(&mount, user_namespace).unwrap().0.len(), count, "{mount}");
        }
        let found = plan(&bind(&format!(r#"{own},"options":["ridmap"]"#)), false).unwrap();
        assert_eq!(found.0[0].mapping.which, Mapped::All);
    }

    #[test]
    fn contradictions_are_named_by_their_field() {
        let ids = r#"[{"containerID":0,"hostID":0,"size":1}]"#;
        for (mount, user_namespace, field) in [
            (bind(r#""options":["idmap"]"#), false, "mounts[0].options"),
            (bind(&format!(r#""uidMappings":{ids}"#)), true, "mounts[0].gidMappings"),
            (bind(&format!(r#""gidMappings":{ids}"#)), true, "mounts[0].uidMappings"),
            (
                bind(&format!(r#""uidMappings":[],"gidMappings":{ids}"#)),
                true,
                "mounts[0].uidMappings",
            ),
            (
                format!(
                    r#"{{"destination":"/a","type":"tmpfs","uidMappings":{ids},"gidMappings":{ids}}}"#
                ),
                true,
                "mounts[0]",
            ),
        ] {
            let error = plan(&mount, user_namespace).unwrap_err().to_string();
            assert_eq!(error, field, "{mount}");
        }
    }
}
