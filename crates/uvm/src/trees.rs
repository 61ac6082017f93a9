//! Opening the file trees that a container brings into the VM.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{Mount, Spec};
use runhcs_compute::{Error, Result};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::connection::MAX_DESCRIPTORS;

/// A container's trees: its root, then the sources of some of its mounts.
pub struct Trees {
    /// Detached mounts.
    pub mounts: Vec<OwnedFd>,
    /// Which of the spec's mounts each one after the first is the source of.
    pub indexes: Vec<usize>,
}

/// Opens the root file system and the sources of all bind mounts, as the caller sees them.
pub fn open(spec: &Spec) -> Result<Trees> {
    let root = spec.root().as_ref().ok_or_else(|| {
        Error::Unsupported("a container in a virtual machine needs a root file system".to_owned())
    })?;
    // What is mounted in the root file system is part of it.
    let mut trees = Trees { mounts: vec![open_one(root.path(), true)?], indexes: Vec::new() };
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    for (index, mount) in mounts.iter().enumerate() {
        let Some(recursive) = bind(mount) else { continue };
        let source = mount.source().as_deref().ok_or_else(|| {
            Error::Unsupported(format!(
                "the bind mount on {} has no source",
                mount.destination().display()
            ))
        })?;
        trees.mounts.push(open_one(source, recursive)?);
        trees.indexes.push(index);
    }
    if trees.mounts.len() > MAX_DESCRIPTORS {
        return Err(Error::Unsupported(format!(
            "a container in a virtual machine can have {} bind mounts; this one has {}",
            MAX_DESCRIPTORS - 1,
            trees.indexes.len()
        )));
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
            let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
            let mount = MountBuilder::default()
                .destination("/x")
                .source("/y")
                .typ(kind)
                .options(options.clone())
                .build()
                .unwrap();
            assert_eq!(bind(&mount), expected, "{kind} {options:?}");
        }
    }
}
