//! The VM's directory: its lock, its socket and its logs.
//!
//! Everything in it is reached through a descriptor. A socket's path may thus be as long as the
//! file system allows, and the directory stays within reach in the private mount namespace.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use runhcs_uvm::files;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, inotify};
use rustix::io::Errno;

/// A VM's directory, held by the one shim that serves it.
#[derive(Debug)]
pub struct VmDir {
    path: PathBuf,
    directory: OwnedFd,
    lock: File,
}

impl VmDir {
    /// Takes the directory. The lock file tells others which process has it.
    ///
    /// # Errors
    /// If the directory isn't there, or a live shim has it.
    pub fn claim(path: &Path) -> anyhow::Result<Self> {
        let directory = rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .with_context(|| format!("cannot open the VM's directory {}", path.display()))?;
        let lock = rustix::fs::openat(
            &directory,
            files::LOCK,
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
        )
        .with_context(|| format!("cannot open {}", path.join(files::LOCK).display()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                bail!("another VM shim serves {}", path.display())
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot lock {}", path.join(files::LOCK).display()));
            }
        }
        let mut lock = File::from(lock);
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .with_context(|| format!("cannot write {}", path.join(files::LOCK).display()))?;
        Ok(Self { path: path.to_owned(), directory, lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A lock that the VM's processes inherit, so that others know when the last one has ended.
    /// It is not the shim's own, and can't be written, for its holders aren't trusted.
    pub fn life(&self) -> anyhow::Result<OwnedFd> {
        let what = || format!("cannot lock {}", self.path.join(files::LIFE).display());
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let life = rustix::fs::openat(&self.directory, files::LIFE, flags, mode);
        let life = life.with_context(what)?;
        rustix::fs::flock(&life, FlockOperation::NonBlockingLockExclusive).with_context(what)?;
        Ok(life)
    }

    /// Listens on the VM's socket.
    pub fn listen(&self) -> anyhow::Result<UnixListener> {
        let shown = self.path.join(files::SOCKET);
        self.remove_socket();
        let path = format!("/proc/self/fd/{}/{}", self.directory.as_raw_fd(), files::SOCKET);
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", shown.display()))
    }

    /// Opens a log for writing, empty.
    pub fn create_log(&self, name: &str) -> anyhow::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, name, flags, Mode::from_raw_mode(0o600))
            .map(File::from)
            .with_context(|| format!("cannot create {}", self.path.join(name).display()))
    }

    /// Leaves word for later commands of why the VM has ended.
    pub fn write_obituary(&self, reason: &str) -> anyhow::Result<()> {
        let what = || format!("cannot write {}", self.path.join(files::OBITUARY).display());
        self.create_log(files::OBITUARY)?.write_all(reason.as_bytes()).with_context(what)
    }

    /// Gives a file in the directory another name, replacing what has it.
    pub fn rename(&self, from: &str, to: &str) -> anyhow::Result<()> {
        rustix::fs::renameat(&self.directory, from, &self.directory, to)
            .with_context(|| format!("cannot rename {}", self.path.join(from).display()))
    }

    /// A descriptor that is readable when the directory may have been removed.
    pub fn watch(&self) -> anyhow::Result<OwnedFd> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .context("cannot make an inotify instance")?;
        let path = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        let events = inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&watch, path, events)
            .with_context(|| format!("cannot watch {}", self.path.display()))?;
        Ok(watch)
    }

    /// Whether the lock file in the directory is still ours.
    pub fn is_ours(&self) -> bool {
        let there = rustix::fs::statat(&self.directory, files::LOCK, AtFlags::SYMLINK_NOFOLLOW);
        match (there, self.lock.metadata()) {
            (Ok(there), Ok(ours)) => (there.st_dev, there.st_ino) == (ours.dev(), ours.ino()),
            _ => false,
        }
    }

    fn remove_socket(&self) {
        // What can't be removed makes binding fail, with a message.
        let _ = rustix::fs::unlinkat(&self.directory, files::SOCKET, AtFlags::empty());
    }
}

impl Drop for VmDir {
    fn drop(&mut self) {
        self.remove_socket();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn one_shim_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = VmDir::claim(dir.path()).unwrap();
        let error = VmDir::claim(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another VM shim"), "{error}");
        drop(first);
        VmDir::claim(dir.path()).unwrap();
    }

    #[test]
    fn a_socket_below_a_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let vm = VmDir::claim(&deep).unwrap();
        let _listener = vm.listen().unwrap();
        let fd = File::open(&deep).unwrap();
        let path = format!("/proc/self/fd/{}/{}", fd.as_raw_fd(), files::SOCKET);
        UnixStream::connect(path).unwrap();
        drop(vm);
        assert!(!deep.join(files::SOCKET).exists());
    }

    #[test]
    fn a_removed_directory_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let vm = VmDir::claim(dir.path()).unwrap();
        let watch = vm.watch().unwrap();
        assert!(vm.is_ours());
        std::fs::remove_file(dir.path().join(files::LOCK)).unwrap();
        assert!(!vm.is_ours());
        let mut buffer = [0; 1024];
        assert!(rustix::io::read(&watch, &mut buffer).unwrap() > 0);
    }
}
