//! Descriptors in the runtime's poll set.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor of ours.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always gives the same number, which stays open until it is dropped, and
    // `AsyncFd` takes it out of the poll set before that.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
