//! The runtime's own program, out of reach for containers (CVE-2019-5736).
//!
//! A container can have the runtime executed in it, by asking for `/proc/self/exe` or for a script
//! whose interpreter that is. What `/proc/<pid>/exe` of that process leads to is then the
//! runtime's file on the host, which a container's root could open, and write to once nobody
//! executes it any more. So the runtime is executed from a mount of its own file that is read-only
//! and that nobody can remount, because it is in no mount namespace; where that can't be had, from
//! a copy in memory that is sealed.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use runhcs_compute::{Error, Result};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mount::OpenTreeFlags;

use crate::error::Context;
use crate::rootfs::{mount_attr, options::Attributes};

/// Where a process finds its own program.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Executes this program again from where containers can't reach it, with the same arguments and
/// the variable `name` set to `value` in its environment. Returns only if that fails.
///
/// To be called before any thread is started and anything is opened that is to be closed.
pub fn execute_sealed(name: &str, value: &std::ffi::OsStr) -> Error {
    match prepare(name, value) {
        Ok((program, arguments, environment)) => {
            let error = execute(&program, &arguments, &environment);
            Error::failed("execute the runtime's own program again", error)
        }
        Err(error) => error,
    }
}

fn prepare(name: &str, value: &std::ffi::OsStr) -> Result<(OwnedFd, Vec<CString>, Vec<CString>)> {
    let program = match read_only_mount(Path::new(OWN_PROGRAM)) {
        Ok(program) => program,
        // Old kernels, and users who may not mount.
        Err(_) => sealed_copy(Path::new(OWN_PROGRAM))
            .context(|| "copy the runtime's own program".into())?,
    };
    let text = |text: OsString| {
        CString::new(text.into_vec()).context(|| "pass arguments and environment on".into())
    };
    let arguments = std::env::args_os().map(text).collect::<Result<_>>()?;
    let inherited = std::env::vars_os().filter(|(key, _)| key != name);
    let environment = inherited.chain([(name.into(), value.to_owned())]).map(|(key, value)| {
        let mut entry = key;
        entry.push("=");
        entry.push(value);
        text(entry)
    });
    Ok((program, arguments, environment.collect::<Result<_>>()?))
}

fn read_only_mount(program: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = rustix::mount::open_tree(rustix::fs::CWD, program, flags)?;
    let change = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    mount_attr::set(mount.as_fd(), change, false)?;
    Ok(mount)
}

fn sealed_copy(program: &Path) -> io::Result<OwnedFd> {
    let mut own = File::open(program)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = File::from(rustix::fs::memfd_create("runhcs", flags)?);
    io::copy(&mut own, &mut copy)?;
    copy.rewind()?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}

fn execute(program: &OwnedFd, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    let none: &CStr = c"";
    // SAFETY: both lists end with a null pointer and point to C strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            none.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_can_be_written() {
        let open = |fd: &OwnedFd| {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            std::fs::OpenOptions::new().write(true).open(path)
        };
        // Not a running program, which nobody can write anyway.
        let file = tempfile::NamedTempFile::new().unwrap();
        let copy = sealed_copy(file.path()).unwrap();
        // A sealed file can be opened, but not written.
        let written = open(&copy).and_then(|mut file| io::Write::write(&mut file, b"x"));
        assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EPERM));
        if rustix::process::geteuid().is_root() {
            let mount = read_only_mount(file.path()).unwrap();
            assert_eq!(open(&mount).unwrap_err().raw_os_error(), Some(libc::EROFS));
        }
    }
}
