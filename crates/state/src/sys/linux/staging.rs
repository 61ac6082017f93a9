//! The directory where entries are that are not yet, or no more, in their place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FlockOperation, Mode, RenameFlags, flock, mkdirat, openat, renameat_with, unlinkat,
};
use rustix::io::Errno;

use super::tree::{names, remove_contents};
use super::{OPEN_DIR, is_at, make_dir};

/// Its name in the root.
const NAME: &str = "~tmp";
/// How often a draft starts over because a sweeper took its new directory for a leftover.
const ATTEMPTS: usize = 100;

/// The staging directory, held open. Whoever works on something in it holds that thing's lock.
#[derive(Debug)]
pub(super) struct Staging(OwnedFd);

impl AsFd for Staging {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Staging {
    /// Opens it, made if need be.
    pub(super) fn open(root: &OwnedFd) -> io::Result<Self> {
        make_dir(root, NAME)?;
        Ok(Self(openat(root, NAME, OPEN_DIR, Mode::empty())?))
    }

    /// Removes what crashed claims and removals left: all that is unlocked. What resists is left
    /// to the next sweep; it is in nobody's way.
    pub(super) fn sweep(&self) {
        for (name, _) in names(self).unwrap_or_default() {
            let Ok(dir) = openat(self, &name, OPEN_DIR, Mode::empty()) else { continue };
            // Its owner may have moved it to its place, or removed it, before the lock was taken.
            if lock_leftover(&dir, self, &name) == Ok(true) && remove_contents(&dir, "").is_ok() {
                let _ = unlinkat(self, &name, AtFlags::REMOVEDIR);
            }
        }
    }

    /// A new, empty, locked directory, and the guard that removes it unless it is published.
    pub(super) fn draft(&self) -> io::Result<(OwnedFd, Draft<'_>)> {
        for _ in 0..ATTEMPTS {
            let name = fresh_name()?;
            mkdirat(self, &name, Mode::RWXU)?;
            let draft = Draft { staging: self, name, published: false };
            // Until it is locked, a sweeper may take it for a leftover and remove it.
            let dir = match openat(self, &draft.name, OPEN_DIR, Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            if lock_leftover(&dir, self, draft.name.as_str())? {
                return Ok((dir, draft));
            }
        }
        Err(io::Error::other("other processes keep taking new entries for leftovers"))
    }
}

/// Takes the lock if it is free and `dir` is still what `name` means in the staging directory.
fn lock_leftover(
    dir: &OwnedFd,
    staging: &Staging,
    name: impl rustix::path::Arg,
) -> rustix::io::Result<bool> {
    match flock(dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => is_at(dir, staging, name),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A name nothing in the staging directory has.
pub(super) fn fresh_name() -> io::Result<String> {
    let mut random = [0u8; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}

/// A directory that goes, with all in it, unless it is published.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    staging: &'a Staging,
    name: String,
    published: bool,
}

impl Draft<'_> {
    /// Moves it to its place; false if that is taken.
    pub(super) fn publish(mut self, root: &OwnedFd, name: &str) -> io::Result<bool> {
        match renameat_with(self.staging, &self.name, root, name, RenameFlags::NOREPLACE) {
            Ok(()) => self.published = true,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.published)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: what stays is a leftover like those of a crash.
            if let Ok(dir) = openat(self.staging, &self.name, OPEN_DIR, Mode::empty()) {
                let _ = remove_contents(&dir, "");
            }
            let _ = unlinkat(self.staging, &self.name, AtFlags::REMOVEDIR);
        }
    }
}
