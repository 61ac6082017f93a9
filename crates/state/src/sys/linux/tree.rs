//! Removing a directory's contents without ever leaving the directory.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, ResolveFlags, openat2, unlinkat};
use rustix::io::Errno;

use super::OPEN_DIR;

/// How deep an entry's directory may be nested; more than anything that belongs there needs.
const MAX_DEPTH: u32 = 64;

/// The names in a directory.
pub(super) fn names(dir: impl AsFd) -> rustix::io::Result<Vec<(CString, FileType)>> {
    Dir::read_from(dir)?
        .map(|entry| entry.map(|entry| (entry.file_name().to_owned(), entry.file_type())))
        .filter(|entry| !matches!(entry, Ok((name, _)) if name == c"." || name == c".."))
        .collect()
}

/// Removes all that is in the directory, `last` after everything else. Follows no symbolic link
/// and enters no mount, not even one of the same file system: `EXDEV` then.
pub(super) fn remove_contents(dir: impl AsFd, last: &str) -> rustix::io::Result<()> {
    let mut names = names(&dir)?;
    names.sort_by_key(|(name, _)| name.to_bytes() == last.as_bytes());
    remove_each(dir, names, MAX_DEPTH)
}

fn remove_each(
    dir: impl AsFd,
    names: Vec<(CString, FileType)>,
    depth: u32,
) -> rustix::io::Result<()> {
    let dir = dir.as_fd();
    for (name, kind) in names {
        let gone = if kind == FileType::Directory {
            let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
            open_beneath(dir, &name)
                .and_then(|inner| remove_each(&inner, self::names(&inner)?, depth))
                .and_then(|()| unlinkat(dir, &name, AtFlags::REMOVEDIR))
        } else {
            unlinkat(dir, &name, AtFlags::empty())
        };
        match gone {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open_beneath(dir: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(dir, name, OPEN_DIR, Mode::empty(), within)
}
