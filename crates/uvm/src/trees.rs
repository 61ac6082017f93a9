//! Opening the file trees that a container brings into the VM.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};
use runhcs_compute::{Error, Result};
use runhcs_protocol::shim::BindMount;
use rustix::fs::{CWD, FileType};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::mount_points::MountPoints;

/// May give the files in the detached mount of `mounts[index]`'s source other owners, before it is
/// shared with a VM; says whether it does.
pub type Prepare<'a> = dyn Fn(usize, BorrowedFd<'_>) -> Result<bool> + 'a;

/// A container's trees: its root, then the sources of its bind mounts.
pub struct Trees {
    /// Detached mounts.
    pub mounts: Vec<OwnedFd>,
    /// Where other file systems are mounted in the root.
    pub root_inner: Vec<PathBuf>,
    /// What each one after the first is the source of.
    pub binds: Vec<BindMount>,
}

/// Opens the root file system and the sources of all bind mounts, as the caller sees them.
/// `prepare` is given each source's tree with the mount's index before anybody else sees it.
///
/// # Errors
/// What can't be opened, or can't be had in a VM: sockets, pipes and devices, for nobody in the
/// guest is behind them, and mounts that are to reach the host.
pub fn open(spec: &Spec, prepare: &Prepare<'_>) -> Result<Trees> {
    let root = spec.root().as_ref().ok_or_else(|| {
        Error::Unsupported("a container in a virtual machine needs a root file system".to_owned())
    })?;
    let points = MountPoints::read()
        .map_err(|error| Error::failed("cannot read /proc/self/mountinfo", error))?;
    // What is mounted in the root file system is part of it.
    let mut trees = Trees {
        mounts: vec![open_one(root.path(), true)?],
        root_inner: inner(&points, root.path())?,
        binds: Vec::new(),
    };
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    for (index, mount) in mounts.iter().enumerate() {
        let Some(recursive) = bind(mount) else { continue };
        let source = mount.source().as_deref().ok_or_else(|| {
            Error::Unsupported(format!(
                "mounts[{index}]: the bind mount on {} has no source",
                mount.destination().display()
            ))
        })?;
        refuse_propagation_to_host(index, mount)?;
        let tree = open_one(source, recursive)?;
        refuse_endpoint(index, source, &tree)?;
        let is_mapped = prepare(index, tree.as_fd())?;
        let inner = if recursive { inner(&points, source)? } else { Vec::new() };
        trees.mounts.push(tree);
        trees.binds.push(BindMount { index, shareable: inner.is_empty() && !is_mapped, inner });
    }
    Ok(trees)
}

/// Whether the mount is a bind mount, and if so, a recursive one. As in runc, an option decides
/// as well as the type does.
fn bind(mount: &Mount) -> Option<bool> {
    let options = mount.options().as_deref().unwrap_or_default();
    let has = |wanted: &str| options.iter().any(|option| option == wanted);
    let is_bind = has("bind") || has("rbind") || mount.typ().as_deref() == Some("bind");
    is_bind.then(|| has("rbind"))
}

/// The guest's mounts are the guest's.
fn refuse_propagation_to_host(index: usize, mount: &Mount) -> Result<()> {
    let options = mount.options().as_deref().unwrap_or_default();
    match options.iter().find(|option| matches!(option.as_str(), "shared" | "rshared")) {
        None => Ok(()),
        Some(option) => Err(Error::Unsupported(format!(
            "mounts[{index}].options: what a container in a virtual machine mounts can't reach \
             this host, so {} can't be `{option}`; `rslave` has it see what this host mounts",
            mount.destination().display()
        ))),
    }
}

/// Refuses a source that is the end of a connection with somebody on this host, or a device.
fn refuse_endpoint(index: usize, source: &Path, tree: &OwnedFd) -> Result<()> {
    let stat = rustix::fs::fstat(tree).map_err(|error| {
        Error::failed(format!("cannot examine {}", source.display()), std::io::Error::from(error))
    })?;
    let (kind, instead) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => ("a socket", "share its directory between containers of the pod"),
        FileType::Fifo => ("a pipe", "share its directory between containers of the pod"),
        FileType::CharacterDevice | FileType::BlockDevice => {
            ("a device", "name it in linux.devices")
        }
        _ => return Ok(()),
    };
    Err(Error::Unsupported(format!(
        "mounts[{index}].source: {} is {kind} of this host, which can't be had in a virtual \
         machine by a bind mount; {instead}",
        source.display()
    )))
}

/// Where other file systems are mounted below `source`. Those whose path can't be written down are
/// seen in the guest all the same, but have the options of the mount that they are in.
fn inner(points: &MountPoints, source: &Path) -> Result<Vec<PathBuf>> {
    let resolved = source.canonicalize().map_err(|error| {
        Error::failed(format!("cannot resolve the path {}", source.display()), error)
    })?;
    let (known, strange): (Vec<_>, Vec<_>) =
        points.below(&resolved).into_iter().partition(|point| point.to_str().is_some());
    for point in strange {
        tracing::warn!(?point, "what is mounted there gets the options of the mount around it");
    }
    Ok(known)
}

fn open_one(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags).map_err(|error| {
        Error::failed(
            format!("cannot open {} to share it with the virtual machine", path.display()),
            std::io::Error::from(error),
        )
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::MountBuilder;

    use super::*;

    fn mount(kind: &str, options: &[&str]) -> Mount {
        let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
        MountBuilder::default()
            .destination("/x")
            .source("/y")
            .typ(kind)
            .options(options)
            .build()
            .unwrap()
    }

    #[test]
    fn which_mounts_are_binds() {
        for (kind, options, expected) in [
            ("bind", &[][..], Some(false)),
            ("none", &["rbind", "ro"], Some(true)),
            ("none", &["bind"], Some(false)),
            ("bind", &["rbind"], Some(true)),
            ("tmpfs", &["nosuid"], None),
            ("proc", &[], None),
        ] {
            assert_eq!(bind(&mount(kind, options)), expected, "{kind} {options:?}");
        }
    }

    #[test]
    fn the_host_does_not_follow_a_guest() {
        for options in [&["rbind", "rprivate"][..], &["bind", "rslave"], &["bind", "slave"]] {
            refuse_propagation_to_host(0, &mount("bind", options)).unwrap();
        }
        let error = refuse_propagation_to_host(3, &mount("bind", &["rbind", "rshared"]));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("mounts[3].options") && text.contains("`rshared`"), "{text}");
    }
}
