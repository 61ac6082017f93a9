//! One entry: a directory with values, and its lock.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, RenameFlags, flock, renameat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::staging::{Staging, fresh_name};
use super::tree::remove_contents;
use super::{is_at, value};
use crate::sys::Read;
use crate::{Error, Result};

/// An entry's directory, held open. The directory may have been removed meanwhile.
#[derive(Debug)]
pub(crate) struct Dir {
    /// `<root>/<name>`, for messages and for callers who need a path.
    path: PathBuf,
    root: OwnedFd,
    name: String,
    fd: OwnedFd,
}

impl Dir {
    pub(super) fn new(path: PathBuf, root: OwnedFd, name: &str, fd: OwnedFd) -> Self {
        Self { path, root, name: name.to_owned(), fd }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a value is kept, for messages.
    pub(crate) fn value_path(&self, value: &str) -> PathBuf {
        value::path(&self.path, value)
    }

    pub(crate) fn read(&self, value: &str) -> Result<Read> {
        match value::read(&self.fd, &self.path, value)? {
            // Either it was never written, or a removal has come this far.
            Read::Absent if !self.is_current()? => Ok(Read::Gone),
            read => Ok(read),
        }
    }

    /// Replaces a value. The caller holds the lock.
    pub(crate) fn write(&self, value: &str, json: &[u8]) -> Result<()> {
        value::write(&self.fd, &self.path, value, json)
    }

    /// Removes a value if it is there.
    pub(crate) fn erase(&self, value: &str) -> Result<()> {
        value::erase(&self.fd, &self.path, value)
    }

    /// Whether this directory is still the entry of its name.
    pub(crate) fn is_current(&self) -> Result<bool> {
        is_at(&self.fd, &self.root, &self.name).map_err(|e| Error::io("inspect", &self.path, e))
    }

    /// Waits for the lock. False, and not locked, if the entry was removed meanwhile.
    pub(crate) fn lock(&self) -> Result<bool> {
        rustix::io::retry_on_intr(|| flock(&self.fd, FlockOperation::LockExclusive))
            .map_err(|e| Error::io("lock", &self.path, e))?;
        let current = self.is_current();
        if !matches!(current, Ok(true)) {
            self.unlock();
        }
        current
    }

    /// Gives the lock up, also for children that have a copy of the descriptor.
    pub(crate) fn unlock(&self) {
        // Fails for nothing but a descriptor that isn't open, and this one is.
        let _ = flock(&self.fd, FlockOperation::Unlock);
    }

    /// Removes the directory and all in it, the value `last` after everything else. The caller
    /// holds the lock. If something can't be removed, the entry goes back to its place.
    pub(crate) fn remove(&self, last: &str) -> Result<()> {
        let failed = |e: std::io::Error| Error::io("remove", &self.path, e);
        if !self.is_current()? {
            return Ok(());
        }
        let staging = Staging::open(&self.root).map_err(failed)?;
        let aside = fresh_name().map_err(failed)?;
        match renameat(&self.root, &self.name, &staging, &aside) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed(error.into())),
        }
        remove_contents(&self.fd, &format!("{last}.json"))
            .and_then(|()| unlinkat(&staging, &aside, AtFlags::REMOVEDIR))
            .map_err(|error| {
                // If the id has been claimed meanwhile, the rest is left to the sweeper.
                let back = RenameFlags::NOREPLACE;
                let _ = renameat_with(&staging, &aside, &self.root, &self.name, back);
                failed(error.into())
            })
    }
}
