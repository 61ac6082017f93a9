//! Replaces a program that has just begun by itself from a read-only mount.
//!
//! Every page of the program's file is mapped from the mount instead, with the same content at the
//! same place. When nothing of the file as it was executed is mapped any more, the process can be
//! given another executable file (`PR_SET_MM_MAP`, prctl(2)).

use core::ffi::CStr;
use std::cell::UnsafeCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::entry::{Start, Strings};
use super::program::Program;
use super::raw::{Descriptor, Failed, call};

/// Of a path, with its end (`PATH_MAX`, path_resolution(7)).
const PATH_MAX: usize = 4096;
const OWN_PROGRAM: &CStr = c"/proc/self/exe";

/// The program's path before it was replaced, which can't be found out afterwards.
struct OwnPath {
    bytes: UnsafeCell<[u8; PATH_MAX]>,
    /// 0 unless the program has been replaced.
    length: AtomicUsize,
}

// SAFETY: the bytes are written before there is a second thread, and never again.
unsafe impl Sync for OwnPath {}

static OWN_PATH: OwnPath =
    OwnPath { bytes: UnsafeCell::new([0; PATH_MAX]), length: AtomicUsize::new(0) };

/// The path of the program on the host if it has been replaced.
pub fn path() -> Option<&'static Path> {
    let length = OWN_PATH.length.load(Ordering::Relaxed);
    // SAFETY: see `Sync`.
    let bytes = unsafe { &*OWN_PATH.bytes.get() };
    (length > 0).then(|| Path::new(OsStr::from_bytes(&bytes[..length])))
}

/// Replaces the program, or leaves it as it is; `path` tells.
///
/// # Safety
/// To be called before anything else of the program.
pub unsafe fn replace(start: &Start) {
    // SAFETY: see above.
    if let Ok(length) = unsafe { try_replace(start) } {
        OWN_PATH.length.store(length, Ordering::Relaxed);
    }
}

/// Returns the length of the path. Where it fails, pages may have been mapped anew, which makes no
/// difference to anybody.
///
/// # Safety
/// As of `replace`.
unsafe fn try_replace(start: &Start) -> Result<usize, Failed> {
    // SAFETY: `start` is what the kernel made. Nothing has been written to yet: the path is, after
    // what lies there was mapped.
    unsafe {
        let program = Program::new(start)?;
        let file = read_only()?;
        program.map_from(&file)?;
        let bytes = OWN_PATH.bytes.get() as usize;
        let words = [OWN_PROGRAM.as_ptr() as usize, bytes, PATH_MAX, 0, 0, 0];
        let length = call(libc::SYS_readlink, words)?;
        // One that fills the space may have been cut.
        if length == PATH_MAX {
            return Err(Failed);
        }
        become_executed(start, &program, &file)?;
        Ok(length)
    }
}

/// This program's file on a mount that is in no namespace and that nobody can make writable.
fn read_only() -> Result<Descriptor, Failed> {
    let (none, empty) = (c"".as_ptr() as usize, libc::AT_EMPTY_PATH as usize);
    let flags = (libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC) as usize;
    let words = [libc::AT_FDCWD as usize, OWN_PROGRAM.as_ptr() as usize, flags, 0, 0, 0];
    // SAFETY: a C string.
    let mount = Descriptor(unsafe { call(libc::SYS_open_tree, words)? });
    let change = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let change_at = &raw const change as usize;
    let words = [mount.0, none, empty, change_at, size_of::<libc::mount_attr>(), 0];
    // SAFETY: a C string, and a structure of that size.
    unsafe { call(libc::SYS_mount_setattr, words)? };
    let path = descriptor_path(mount.0);
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    let words = [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0, 0];
    // SAFETY: a C string.
    unsafe { call(libc::SYS_openat, words).map(Descriptor) }
}

/// `/proc/self/fd/<number>`, with a null byte.
fn descriptor_path(number: usize) -> [u8; 32] {
    let mut path = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut at = 14;
    let mut unit = 1;
    while number / unit >= 10 {
        unit *= 10;
    }
    while unit > 0 && at < path.len() - 1 {
        path[at] = b'0' + (number / unit % 10) as u8;
        unit /= 10;
        at += 1;
    }
    path
}

/// `struct prctl_mm_map` (linux/prctl.h): where a process's parts begin and end, and what it executes.
#[repr(C)]
struct MemoryMap {
    code: [usize; 2],
    data: [usize; 2],
    heap: [usize; 2],
    stack: usize,
    arguments: [usize; 2],
    environment: [usize; 2],
    auxiliary: usize,
    auxiliary_size: u32,
    executable: u32,
}

/// Has `file` be what this process executes. All else that the kernel is told stays as it is.
///
/// # Safety
/// `start` and `program` are this process's.
unsafe fn become_executed(
    start: &Start,
    program: &Program,
    file: &Descriptor,
) -> Result<(), Failed> {
    // SAFETY: the first asks where the heap begins, and changes nothing; for the others see above.
    let (heap, arguments, environment) = unsafe {
        let arguments = extent(start.arguments, start.stack);
        let heap = call(libc::SYS_brk, [0; 6])?;
        (heap, arguments, extent(start.environment, arguments[1]))
    };
    let map = MemoryMap {
        code: program.code(),
        data: program.data(),
        heap: [heap; 2],
        stack: start.stack,
        arguments,
        environment,
        // What `/proc/<pid>/auxv` shows stays.
        auxiliary: 0,
        auxiliary_size: 0,
        executable: file.0 as u32,
    };
    let map_at = &raw const map as usize;
    let size = size_of::<MemoryMap>();
    let words = [libc::PR_SET_MM as usize, libc::PR_SET_MM_MAP as usize, map_at, size, 0, 0];
    // SAFETY: a structure of that size, with what is true.
    unsafe { call(libc::SYS_prctl, words).map(|_| ()) }
}

/// Where the strings begin and end, which the kernel puts one after the other; `none` if there is
/// none.
///
/// # Safety
/// As of the type.
unsafe fn extent(strings: Strings, none: usize) -> [usize; 2] {
    // SAFETY: nothing is read after a null pointer or a null byte.
    unsafe {
        let first = *strings;
        if first.is_null() {
            return [none; 2];
        }
        let mut last = strings;
        while !(*last.add(1)).is_null() {
            last = last.add(1);
        }
        let mut end = *last;
        while end.read_volatile() != 0 {
            end = end.add(1);
        }
        [first as usize, end as usize + 1]
    }
}
