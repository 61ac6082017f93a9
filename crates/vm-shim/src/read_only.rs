//! Making a detached mount read-only, before anybody can see it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets `MOUNT_ATTR_RDONLY` on a detached mount itself, not on what is mounted in it
/// (mount_setattr(2)).
pub fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string, and the attributes are as large as we say; the kernel only
    // reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
