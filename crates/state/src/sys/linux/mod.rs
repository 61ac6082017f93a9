//! The store as a directory on a tmpfs.
//!
//! ```text
//! <root>/<name>/<value>.json    an entry and its values
//! <root>/<name>/~<value>        a value that is being written; a leftover if the entry is unlocked
//! <root>/~tmp/<random>          an entry that is being claimed or removed; a leftover if unlocked
//! <root>/~<other>/              what the store keeps besides entries
//! ```
//!
//! An entry's lock is flock(2) on its directory. Entries appear and vanish by rename(2), and only
//! while locked, so whoever has the lock and finds the directory still in its place can rely on it
//! staying there.

mod dir;
mod process;
mod root;
mod staging;
mod tree;
mod value;

pub(crate) use dir::Dir;
pub(crate) use process::process_times;
pub(crate) use root::Root;

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, fstat, mkdirat, statat};
use rustix::io::Errno;

/// File names on Linux's own file systems differ by case.
pub(crate) const NAMES_DIFFER_BY_CASE: bool = true;

impl crate::Entry {
    /// Its directory, for sockets, FIFOs and logs. It goes with the entry.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

/// How directories are opened: for reading, and never through a symbolic link.
const OPEN_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Whether `name` in `parent` is the file that `file` is open on.
fn is_at(
    file: &OwnedFd,
    parent: impl AsFd,
    name: impl rustix::path::Arg,
) -> rustix::io::Result<bool> {
    let there = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => there,
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error),
    };
    let here = fstat(file)?;
    Ok((there.st_dev, there.st_ino) == (here.st_dev, here.st_ino))
}

/// Makes a private directory unless it exists.
fn make_dir(parent: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    match mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => Ok(()),
        outcome => outcome,
    }
}
