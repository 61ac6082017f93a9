//! mount_setattr(2), which rustix lacks.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::mount::MountPropagationFlags;

use super::options::Attributes;

/// linux/mount.h, `struct mount_attr`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Changes the attributes of the mount that `mount` refers to, and of those below it if
/// `recursive`.
pub(crate) fn set(mount: BorrowedFd<'_>, change: Attributes, recursive: bool) -> io::Result<()> {
    let change = MountAttr { set: change.set, clear: change.clear, ..MountAttr::default() };
    call(mount, &change, recursive)
}

/// Has the mount, which must be attached nowhere yet, show other owners than its files have: ids
/// of `user_namespace`, as the host's that they are mapped to.
pub(crate) fn map_ids(
    mount: BorrowedFd<'_>,
    user_namespace: BorrowedFd<'_>,
    recursive: bool,
) -> io::Result<()> {
    let change = MountAttr {
        set: libc::MOUNT_ATTR_IDMAP,
        user_namespace: user_namespace.as_raw_fd() as u64,
        ..MountAttr::default()
    };
    call(mount, &change, recursive)
}

/// Sets the propagation of the mount that `mount` refers to, and of those below it if the flags
/// say so.
pub(crate) fn set_propagation(
    mount: BorrowedFd<'_>,
    flags: MountPropagationFlags,
) -> io::Result<()> {
    let kind = u64::from((flags - MountPropagationFlags::REC).bits());
    let change = MountAttr { propagation: kind, ..MountAttr::default() };
    call(mount, &change, flags.contains(MountPropagationFlags::REC))
}

fn call(mount: BorrowedFd<'_>, attributes: &MountAttr, recursive: bool) -> io::Result<()> {
    const AT_RECURSIVE: libc::c_uint = 0x8000;
    let flags = libc::AT_EMPTY_PATH as libc::c_uint | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, and the kernel reads `size_of::<MountAttr>()` bytes
    // of `attributes`, which outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
