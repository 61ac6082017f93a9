//! The directory of all entries: claiming, opening, listing.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::staging::Staging;
use super::{Dir, OPEN_DIR, make_dir, tree, value};
use crate::{Error, Result};

/// The directory of all entries. It need not exist yet.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    path: PathBuf,
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path =
            std::path::absolute(path).map_err(|e| Error::io("find the directory", path, e))?;
        let root = Self { path };
        root.existing()?;
        Ok(root)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the entry `name` with one value in it, locked; `None` if it exists.
    pub(crate) fn claim(&self, name: &str, value: &str, json: &[u8]) -> Result<Option<Dir>> {
        let path = self.path.join(name);
        let failed = |e: std::io::Error| Error::io("make the entry", &path, e);
        let root = self.made()?;
        let staging = Staging::open(&root).map_err(failed)?;
        staging.sweep();
        let (fd, draft) = staging.draft().map_err(failed)?;
        value::write(&fd, &path, value, json)?;
        let published = draft.publish(&root, name).map_err(failed)?;
        Ok(published.then(|| Dir::new(path.clone(), root, name, fd)))
    }

    /// The entry `name`; `None` if there is none.
    pub(crate) fn entry(&self, name: &str) -> Result<Option<Dir>> {
        match self.existing()? {
            Some(root) => self.open_entry(root, name),
            None => Ok(None),
        }
    }

    /// The names of everything in the directory, entry or not.
    pub(crate) fn names(&self) -> Result<Vec<OsString>> {
        let Some(root) = self.existing()? else { return Ok(Vec::new()) };
        let names = tree::names(&root).map_err(|e| Error::io("list", &self.path, e))?;
        Ok(names.into_iter().map(|(name, _)| OsString::from_vec(name.into_bytes())).collect())
    }

    /// The directory `name` that isn't an entry and never goes, made if need be.
    pub(crate) fn shared(&self, name: &str) -> Result<Dir> {
        let root = self.made()?;
        make_dir(&root, name).map_err(|e| Error::io("make", &self.path.join(name), e))?;
        let missing = || Error::io("open", &self.path.join(name), Errno::NOENT);
        self.open_entry(root, name)?.ok_or_else(missing)
    }

    fn open_entry(&self, root: OwnedFd, name: &str) -> Result<Option<Dir>> {
        let path = self.path.join(name);
        match openat(&root, name, OPEN_DIR, Mode::empty()) {
            Ok(fd) => Ok(Some(Dir::new(path, root, name, fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                Err(Error::Foreign { path, reason: "it is not a directory".into() })
            }
            Err(error) => Err(Error::io("open", &path, error)),
        }
    }

    /// The directory, if it exists and nobody else can tamper with it.
    fn existing(&self) -> Result<Option<OwnedFd>> {
        // A symbolic link is followed: what counts is who may write where it leads.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = match openat(CWD, &self.path, flags, Mode::empty()) {
            Ok(root) => root,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(Error::io("open", &self.path, error)),
        };
        let stat = fstat(&root).map_err(|e| Error::io("inspect", &self.path, e))?;
        let untrusted = |reason: String| {
            let reason = format!("{reason}; use a directory of your own with mode 0700");
            Err(Error::Untrusted { path: self.path.clone(), reason })
        };
        if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
            return untrusted(format!("it belongs to user {}", stat.st_uid));
        }
        // The sticky bit wouldn't do: others could still take the ids that are free.
        if stat.st_mode & 0o022 != 0 {
            return untrusted(format!("others can write to it (mode {:o})", stat.st_mode & 0o7777));
        }
        Ok(Some(root))
    }

    /// The directory, made if need be.
    fn made(&self) -> Result<OwnedFd> {
        if let Some(root) = self.existing()? {
            return Ok(root);
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|e| Error::io("make", &self.path, e))?;
        self.existing()?.ok_or_else(|| Error::io("open", &self.path, Errno::NOENT))
    }
}
