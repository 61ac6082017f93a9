//! Attributes of a detached mount, set before anybody can see it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Makes the mount read-only, and what is mounted in it if `recursive`.
pub fn make_read_only(mount: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    set_attributes(mount, flags, libc::MOUNT_ATTR_RDONLY, 0)
}

/// Makes the mount, and all that is mounted in it, read-only and of no use for gaining privileges,
/// but for a `device` that it may be.
pub fn make_harmless(mount: BorrowedFd<'_>, device: bool) -> io::Result<()> {
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
    let attributes = if device { attributes } else { attributes | libc::MOUNT_ATTR_NODEV };
    set_attributes(mount, libc::AT_RECURSIVE, attributes, 0)
}

/// Stops the mount, and all that is mounted in it, from following what the host mounts there, and
/// the host from following us.
pub fn make_private(mount: BorrowedFd<'_>) -> io::Result<()> {
    set_attributes(mount, libc::AT_RECURSIVE, 0, libc::MS_PRIVATE)
}

/// Has the mount, and all that is mounted in it, follow what the host mounts there, but the host
/// not follow us.
pub fn make_follower(mount: BorrowedFd<'_>) -> io::Result<()> {
    set_attributes(mount, libc::AT_RECURSIVE, 0, libc::MS_SLAVE)
}

/// mount_setattr(2) on a descriptor.
fn set_attributes(
    mount: BorrowedFd<'_>,
    flags: libc::c_int,
    attr_set: u64,
    propagation: libc::c_ulong,
) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set, attr_clr: 0, propagation, userns_fd: 0 };
    // SAFETY: the path is a C string, and the attributes are as large as we say; the kernel only
    // reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
