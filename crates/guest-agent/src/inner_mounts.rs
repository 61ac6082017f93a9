//! Mounts within what the host shares.
//!
//! Left alone, the guest's kernel mounts another file system of the host's when a path first leads
//! into it, with the options that the mount around it has by then; and a file on which the host has
//! mounted another is no mount at all. On the host each is a mount of its own, which an option like
//! `ro` doesn't reach. So each is made one in the agent's namespace, of which a container's mounts
//! are copies, before these get their options.

use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Result;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

/// Has what the host has mounted at `point` be a mount of its own.
///
/// # Errors
/// There is nothing at `point`, or a symbolic link leads there.
pub fn make(point: &Path) -> Result<()> {
    if point.components().any(|part| part == Component::ParentDir) {
        return Err(rustix::io::Errno::INVAL);
    }
    // A container that has the volume already may put links into it.
    let open = |flags: OFlags| {
        let flags = OFlags::PATH | OFlags::CLOEXEC | flags;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(CWD, point, flags, Mode::empty(), resolve)
    };
    let file = open(OFlags::NOFOLLOW)?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        // Asking for a directory has it mounted, which O_PATH alone doesn't (open(2)).
        return open(OFlags::DIRECTORY).map(drop);
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(&file, "", flags)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&copy, "", &file, "", flags)
}
