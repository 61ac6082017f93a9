//! clone3(2): a child in new namespaces and, on cgroup version 2, in its control group from its
//! first instruction on.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// linux/sched.h, `struct clone_args`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Where the caller of [`clone`] finds itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Parent { pid: u32 },
    Child,
}

/// Forks, with new namespaces.
///
/// # Safety
/// The process must have one thread only: a lock that another thread held would stay held in the
/// child for ever.
pub(crate) unsafe fn clone(namespaces: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut arguments = CloneArgs {
        flags: namespaces as u32 as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the caller has one thread only.
    unsafe { call(&arguments) }
}

/// Forks, with new namespaces, on behalf of the caller's parent: the new process is the parent's
/// child, and ends with the signal that the caller would end with.
///
/// # Safety
/// As [`clone`].
pub(crate) unsafe fn clone_sibling(namespaces: i32) -> io::Result<Side> {
    // With CLONE_PARENT the kernel takes the caller's own exit signal and accepts no other.
    let flags = namespaces as u32 as u64 | libc::CLONE_PARENT as u64;
    // SAFETY: the caller has one thread only.
    unsafe { call(&CloneArgs { flags, ..CloneArgs::default() }) }
}

/// # Safety
/// As [`clone`].
unsafe fn call(arguments: &CloneArgs) -> io::Result<Side> {
    // SAFETY: without CLONE_VM and without a stack of its own the child goes on with a copy of
    // this one, as with fork(2); the arguments hold no pointers.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_ref(arguments), size_of::<CloneArgs>())
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent { pid: pid as u32 }),
    }
}
