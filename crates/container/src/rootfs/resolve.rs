//! Paths inside a container's root, which its image controls: resolved by the kernel with
//! openat2(2) and `RESOLVE_IN_ROOT`, held as descriptors, never looked up twice.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use runhcs_compute::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::Context;

const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// How many symbolic links one path may lead through, as in path_resolution(7).
const MAX_LINKS: u32 = 40;

/// A path's components that matter: names and `..`.
fn names(path: &Path) -> VecDeque<OsString> {
    let parts = path.components();
    let named = parts.filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
    named.map(|component| component.as_os_str().to_owned()).collect()
}

/// A container's root directory.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl From<OwnedFd> for Root {
    fn from(directory: OwnedFd) -> Self {
        Self(directory)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// Opens a root; `path` is trusted.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .map(Self)
            .context(|| format!("open the root file system {}", path.display()))
    }

    /// What is at `path`, following the image's symbolic links within the root; `None` if nothing
    /// is.
    pub(crate) fn find(&self, path: &Path) -> Result<Option<OwnedFd>> {
        match self.open_at(path, OFlags::PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => {
                Err(error).context(|| format!("look up {} in the container", path.display()))
            }
        }
    }

    /// The directory at `path`, made with all its parents where missing. A symbolic link to a
    /// directory that doesn't exist yet makes that directory, within the root.
    pub(crate) fn directory(&self, path: &Path) -> Result<OwnedFd> {
        let what = || format!("make directory {} in the container", path.display());
        let open = |path: &Path| self.open_at(path, OFlags::PATH | OFlags::DIRECTORY);
        // Most are there; only what isn't is worth walking to.
        if let Ok(found) = open(path) {
            return Ok(found);
        }
        let mut ahead: VecDeque<OsString> = names(path);
        let mut reached = PathBuf::from("/");
        let mut links = 0;
        let mut fd = open(&reached).context(what)?;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                reached.pop();
                fd = open(&reached).context(what)?;
                continue;
            }
            let next = reached.join(&name);
            match open(&next) {
                Ok(directory) => (fd, reached) = (directory, next),
                Err(Errno::NOENT) => match rustix::fs::readlinkat(&fd, &name, Vec::new()) {
                    Ok(_) if links == MAX_LINKS => return Err(Errno::LOOP).context(what),
                    Ok(target) => {
                        links += 1;
                        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                        if target.is_absolute() {
                            reached = PathBuf::from("/");
                            fd = open(&reached).context(what)?;
                        }
                        names(&target).into_iter().rev().for_each(|name| ahead.push_front(name));
                    }
                    Err(_) => {
                        match rustix::fs::mkdirat(&fd, &name, DIRECTORY_MODE) {
                            Ok(()) | Err(Errno::EXIST) => {}
                            Err(error) => return Err(error).context(what),
                        }
                        fd = open(&next).context(what)?;
                        reached = next;
                    }
                },
                Err(error) => return Err(error).context(what),
            }
        }
        Ok(fd)
    }

    /// What is at `path`, or a new empty file there if nothing is.
    pub(crate) fn file(&self, path: &Path) -> Result<OwnedFd> {
        let what = || format!("make file {} in the container", path.display());
        if let Some(found) = self.find(path)? {
            return Ok(found);
        }
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let parent = self.directory(path.parent().unwrap_or(Path::new("/")))?;
            let name = path.file_name().unwrap_or_default();
            // A link to nothing: the file is made where it leads to, within the root.
            match rustix::fs::readlinkat(&parent, name, Vec::new()) {
                Ok(target) => {
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    path = path.parent().unwrap_or(Path::new("/")).join(target);
                }
                Err(_) => return new_file(&parent, name).context(what),
            }
            if let Some(found) = self.find(&path)? {
                return Ok(found);
            }
        }
        Err(Errno::LOOP).context(what)
    }

    /// As [`Root::file`], but a symbolic link there is refused rather than followed.
    pub(crate) fn plain_file(&self, path: &Path) -> Result<OwnedFd> {
        let what = || format!("make file {} in the container", path.display());
        let parent = self.directory(path.parent().unwrap_or(Path::new("/")))?;
        let name = path.file_name().unwrap_or_default();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return new_file(&parent, name).context(what),
            found => found.context(what)?,
        };
        let stat = rustix::fs::fstat(&found).context(what)?;
        if FileType::from_raw_mode(stat.st_mode).is_symlink() {
            return Err(Error::failed(what(), "the image has a symbolic link there"));
        }
        Ok(found)
    }

    /// As [`Root::directory`], but refuses a path that leads through symbolic links: two names for
    /// one place let the image keep one of them from being protected (CVE-2023-27561).
    pub(crate) fn plain_directory(&self, path: &Path) -> Result<OwnedFd> {
        let open = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            self.open_in_root(path, flags, ResolveFlags::NO_SYMLINKS)
        };
        let opened = match open() {
            Err(Errno::NOENT) => {
                self.directory(path)?;
                open()
            }
            opened => opened,
        };
        let what = || format!("find directory {} in the container", path.display());
        match opened {
            Err(Errno::LOOP) => {
                let why = "it must be mounted on ordinary directory, but the image has a symbolic \
                           link there or on the way";
                Err(Error::failed(what(), why))
            }
            opened => opened.context(what),
        }
    }

    /// Opens what is at `path`, following links within the root, but none of procfs' that lead to
    /// what a descriptor or another process has open.
    pub(crate) fn open_at(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.open_in_root(path, flags, ResolveFlags::empty())
    }

    fn open_in_root(
        &self,
        path: &Path,
        flags: OFlags,
        more: ResolveFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        // EAGAIN: something was renamed while `..` was being resolved; openat2(2) says try again.
        let mut attempts = 0;
        loop {
            match rustix::fs::openat2(
                &self.0,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                Err(Errno::AGAIN) if attempts < 64 => attempts += 1,
                other => return other,
            }
        }
    }
}

fn new_file(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags | OFlags::WRONLY, FILE_MODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode(fd: impl AsFd) -> (u64, u64) {
        let stat = rustix::fs::fstat(fd).unwrap();
        (stat.st_dev, stat.st_ino)
    }

    #[test]
    fn links_of_the_image_stay_within_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("abs")).unwrap();
        std::os::unix::fs::symlink("../../../../etc", root.join("up")).unwrap();
        let root_fd = Root::open(&root).unwrap();
        let etc = inode(Root::open(&root.join("etc")).unwrap());
        for path in ["/etc", "/abs", "/up", "/../../etc"] {
            assert_eq!(inode(root_fd.directory(Path::new(path)).unwrap()), etc, "{path}");
        }
        root_fd.directory(Path::new("/up/new/dir")).unwrap();
        assert!(root.join("etc/new/dir").is_dir());
        root_fd.file(Path::new("/abs/new/file")).unwrap();
        assert!(root.join("etc/new/file").is_file());
        assert!(!Path::new("/etc/new").exists());
    }

    #[test]
    fn a_dangling_link_to_a_file_makes_it_within_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink("/new/x", root.join("link")).unwrap();
        std::os::unix::fs::symlink("../../../y", root.join("up")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        let fd = Root::open(&root).unwrap();
        assert!(fd.find(Path::new("/link")).unwrap().is_none());
        fd.file(Path::new("/link")).unwrap();
        assert!(root.join("new/x").is_file());
        fd.file(Path::new("/up")).unwrap();
        assert!(root.join("y").is_file() && !directory.path().join("y").exists());
        assert!(fd.file(Path::new("/loop")).is_err());
    }

    #[test]
    fn a_dangling_link_to_a_directory_makes_it_within_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink("../../run/x", root.join("rel")).unwrap();
        std::os::unix::fs::symlink("/loop", root.join("loop")).unwrap();
        let fd = Root::open(&root).unwrap();
        fd.directory(Path::new("/rel/y")).unwrap();
        assert!(root.join("run/x/y").is_dir());
        assert!(fd.directory(Path::new("/loop")).is_err());
    }

    #[test]
    fn links_can_be_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink("real", root.join("link")).unwrap();
        let fd = Root::open(root).unwrap();
        fd.plain_directory(Path::new("/real/new")).unwrap();
        assert!(root.join("real/new").is_dir());
        for path in ["/link", "/link/new"] {
            let error = fd.plain_directory(Path::new(path)).unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains("symbolic link"), "{cause}");
        }
        fd.plain_file(Path::new("/real/file")).unwrap();
        fd.plain_file(Path::new("/link/file")).unwrap();
        assert!(fd.plain_file(Path::new("/link")).is_err());
    }
}
