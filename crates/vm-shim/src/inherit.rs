//! Letting a child process have a descriptor.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::{FdFlags, fcntl_setfd};

/// While this lives, a process started by this one inherits the descriptor, by the same number.
/// To be used by one thread at a time.
#[derive(Debug)]
pub struct Inherit<'a>(BorrowedFd<'a>);

impl<'a> Inherit<'a> {
    /// Takes the close-on-exec flag off.
    pub fn new(fd: &'a impl AsFd) -> std::io::Result<Self> {
        let fd = fd.as_fd();
        fcntl_setfd(fd, FdFlags::empty())?;
        Ok(Self(fd))
    }
}

impl Drop for Inherit<'_> {
    fn drop(&mut self) {
        // The descriptor is open, and nothing else can make this fail (fcntl(2)).
        let _ = fcntl_setfd(self.0, FdFlags::CLOEXEC);
    }
}
