//! Paths a container must not see or must not change. Runs after the root has been changed, with
//! every path resolved to a descriptor first.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use runhcs_compute::Result;
use rustix::fs::{FileType, makedev};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::mounts::{move_to, new_file_system};
use super::options::{Attributes, attr};
use super::resolve::Root;
use super::{Assembled, mount_attr};
use crate::error::{Context, invalid};
use crate::labels;

/// Hides each path: a file behind `null`, a directory behind an empty read-only tmpfs that has the
/// SELinux context `label`.
pub(super) fn mask(
    tree: &Assembled,
    paths: &[String],
    null: &OwnedFd,
    label: Option<&str>,
) -> Result<()> {
    let mut options = vec!["nr_inodes=1".to_owned(), "mode=555".to_owned()];
    options.extend(label.map(labels::context_option));
    for path in paths {
        let Some(target) = tree.find(Path::new(path))? else { continue };
        let what = || format!("mask {path}");
        let stat = rustix::fs::fstat(&target).context(what)?;
        let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let tmpfs = new_file_system("tmpfs", "tmpfs", &options).context(what)?;
            read_only(&tmpfs, false).context(what)?;
            tmpfs
        } else {
            clone_of(null, OpenTreeFlags::empty()).context(what)?
        };
        move_to(&cover, &target).context(what)?;
    }
    Ok(())
}

/// Makes each path read-only, with all that is mounted below it.
pub(super) fn make_read_only(tree: &Assembled, paths: &[String]) -> Result<()> {
    for path in paths {
        let Some(target) = tree.find(Path::new(path))? else { continue };
        let what = || format!("make {path} read-only");
        let tree = clone_of(&target, OpenTreeFlags::AT_RECURSIVE).context(what)?;
        read_only(&tree, true).context(what)?;
        move_to(&tree, &target).context(what)?;
    }
    Ok(())
}

/// The container's null device, checked: an image could have put anything there
/// (CVE-2025-31133).
pub(crate) fn null_device(root: &Root) -> Result<OwnedFd> {
    let null = root.find(Path::new("/dev/null"))?.ok_or_else(|| {
        invalid("linux.maskedPaths", "the container has no /dev/null to mask with")
    })?;
    let stat = rustix::fs::fstat(&null).context(|| "check /dev/null".into())?;
    let genuine = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == makedev(1, 3);
    if genuine {
        Ok(null)
    } else {
        Err(invalid("linux.maskedPaths", "/dev/null is not the null device"))
    }
}

fn read_only(mount: &OwnedFd, recursive: bool) -> std::io::Result<()> {
    mount_attr::set(mount.as_fd(), Attributes { set: attr::RDONLY, clear: 0 }, recursive)
}

/// Mounts what one descriptor refers to over what the other refers to.
pub(super) fn bind_over(source: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    move_to(&clone_of(source, OpenTreeFlags::empty())?, target)
}

/// A detached copy of the mount at what `fd` refers to.
fn clone_of(fd: &OwnedFd, more: OpenTreeFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(fd.as_fd(), "", flags | more)
}
