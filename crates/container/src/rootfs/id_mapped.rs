//! Id-mapped mounts: bind mounts that show other owners than their files have on the file system
//! (mount_setattr(2), "ID-mapped mounts").
//!
//! The kernel takes the privilege over the *file system* for it, which a container in a user
//! namespace of its own lacks. So the creating process opens and maps the sources; the container's
//! init only attaches them. What lies in the root may be there only once mounts before it are: init
//! opens that itself, where it has the privilege.

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
    /// Whether init opens it.
    late: bool,
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

/// What the creating process has opened for mounts, by their index in `mounts`.
#[derive(Debug, Default)]
pub(crate) struct Trees {
    trees: Vec<(usize, OwnedFd)>,
    /// The user namespaces of those that are opened late.
    namespaces: Vec<(usize, OwnedFd)>,
}

impl Trees {
    pub(crate) fn get(&self, index: usize) -> Option<&OwnedFd> {
        find(&self.trees, index)
    }

    pub(crate) fn extend(&mut self, more: Vec<(usize, OwnedFd)>) {
        self.trees.extend(more);
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.trees.iter().chain(&self.namespaces).map(|(_, descriptor)| descriptor.as_raw_fd())
    }
}

fn find(list: &[(usize, OwnedFd)], index: usize) -> Option<&OwnedFd> {
    list.iter().find(|(other, _)| *other == index).map(|(_, descriptor)| descriptor)
}

impl IdMappedMounts {
    /// Finds the mounts that are to be mapped. Those of what lies in `late_within` are opened late.
    pub(crate) fn new(
        spec: &Spec,
        mounts: &[PlannedMount<'_>],
        late_within: Option<&Path>,
    ) -> Result<Self> {
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
            let late = late_within.is_some_and(|root| source.starts_with(root));
            found.push(IdMapped { index, source: source.to_owned(), bind, mapping, late });
        }
        Ok(Self(found))
    }

    /// Whether `mounts[index]` is one of them.
    pub(super) fn has(&self, index: usize) -> bool {
        self.0.iter().any(|mount| mount.index == index)
    }

    /// Opens and maps their sources in the caller's mount namespace.
    pub(crate) fn open(&self) -> Result<Trees> {
        let mut opened = Trees::default();
        for mount in &self.0 {
            let namespace = mount.mapping.ids.namespace()?;
            if mount.late {
                opened.namespaces.push((mount.index, namespace));
                continue;
            }
            let tree = mount.open(&namespace)?;
            let following = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            mount_attr::set_propagation(tree.as_fd(), following)
                .context(|| format!("set the propagation of {}", mount.source.display()))?;
            opened.trees.push((mount.index, tree));
        }
        Ok(opened)
    }

    /// Opens and maps the source of `mounts[index]` in the container's mount namespace, if it is one
    /// of those that are opened late.
    pub(super) fn open_late(&self, index: usize, trees: &Trees) -> Result<Option<OwnedFd>> {
        let mount = self.0.iter().find(|mount| mount.index == index);
        let late = mount.zip(find(&trees.namespaces, index));
        late.map(|(mount, namespace)| mount.open(namespace)).transpose()
    }
}

impl IdMapped {
    fn open(&self, namespace: &OwnedFd) -> Result<OwnedFd> {
        let tree = clone_tree(&self.source, self.bind)?;
        self.mapping.apply(self.index, tree.as_fd(), namespace)?;
        Ok(tree)
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
    mapping.apply(index, tree, &mapping.ids.namespace()?).map(|()| true)
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

    fn apply(&self, index: usize, tree: BorrowedFd<'_>, namespace: &OwnedFd) -> Result<()> {
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
    /// A user namespace with them.
    fn namespace(&self) -> Result<OwnedFd> {
        match self {
            Self::Listed(maps) => user_namespace::with(maps),
            Self::Namespace(path) => {
                let file = File::open(path);
                let what = || format!("open the user namespace {}", path.display());
                Ok(file.context(what)?.into())
            }
        }
    }

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
        IdMappedMounts::new(&spec, &[planned], None)
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
