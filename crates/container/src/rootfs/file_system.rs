//! File systems by fsopen(2), fspick(2) and fsconfig(2), with what the kernel says about options
//! that it refuses.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, fsconfig_create, fsconfig_reconfigure,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick,
};

/// A file system that is being configured.
#[derive(Debug)]
pub(crate) struct FileSystem(OwnedFd);

/// Why a file system can't be had, or not with these options.
#[derive(Debug)]
pub(crate) struct FileSystemError {
    errno: Errno,
    /// The option that is refused.
    option: Option<String>,
    /// The kernel's own words.
    said: Option<String>,
}

type Result<T> = std::result::Result<T, FileSystemError>;

impl From<Errno> for FileSystemError {
    fn from(errno: Errno) -> Self {
        Self { errno, option: None, said: None }
    }
}

impl FileSystemError {
    /// Whether it is for lack of privilege.
    pub(crate) fn is_denied(&self) -> bool {
        self.errno == Errno::PERM
    }
}

impl fmt::Display for FileSystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(option) = &self.option {
            write!(f, "option {option:?}: ")?;
        }
        write!(f, "{}", self.errno)?;
        self.said.as_ref().map_or(Ok(()), |said| write!(f, ": {said}"))
    }
}

impl std::error::Error for FileSystemError {}

impl FileSystem {
    /// A new one of this type.
    pub(crate) fn new(name: &str, source: &str) -> Result<Self> {
        let file_system = Self(fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?);
        fsconfig_set_string(file_system.0.as_fd(), "source", source)
            .map_err(|errno| file_system.error(errno, None))?;
        Ok(file_system)
    }

    /// The one that is mounted there.
    pub(crate) fn mounted(mount: BorrowedFd<'_>) -> Result<Self> {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        Ok(Self(fspick(mount, "", flags)?))
    }

    /// Makes a new one; returns a detached mount of it.
    pub(crate) fn mount(self, options: &[String]) -> Result<OwnedFd> {
        self.configure(options)?;
        fsconfig_create(self.0.as_fd()).map_err(|errno| self.error(errno, None))?;
        fsmount(self.0.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            .map_err(|errno| self.error(errno, None))
    }

    /// Changes one that is mounted.
    pub(crate) fn change(self, options: &[String]) -> Result<()> {
        self.configure(options)?;
        fsconfig_reconfigure(self.0.as_fd()).map_err(|errno| self.error(errno, None))
    }

    fn configure(&self, options: &[String]) -> Result<()> {
        for option in options {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(self.0.as_fd(), key, value),
                None => fsconfig_set_flag(self.0.as_fd(), option.as_str()),
            }
            .map_err(|errno| self.error(errno, Some(option)))?;
        }
        Ok(())
    }

    fn error(&self, errno: Errno, option: Option<&String>) -> FileSystemError {
        // Each message is a letter for its kind, a space, and a line of text (fs_context's log).
        let mut message = [0; 512];
        let said = rustix::io::read(&self.0, &mut message).ok();
        let said = said.map(|length| String::from_utf8_lossy(&message[..length]).into_owned());
        let said = said.and_then(|text| Some(text.split_once(' ')?.1.trim().to_owned()));
        FileSystemError { errno, option: option.cloned(), said }
    }
}
