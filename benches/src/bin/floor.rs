//! The least that a container costs: `floor ROOT PROGRAM [ARGUMENT…]` clones into the namespaces
//! that the others use, pivots into ROOT, mounts /proc, executes PROGRAM and waits for it. No
//! configuration, no state, no cgroup, no protection: nobody can be faster and run a container.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let root = arguments.next().context("usage: floor ROOT PROGRAM [ARGUMENT…]")?;
    let words: Vec<CString> =
        arguments.map(|word| CString::new(word.into_vec())).collect::<Result<_, _>>()?;
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | libc::SIGCHLD;
    // SAFETY: without a stack and CLONE_VM this is fork(2) with namespaces; there is one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match pid {
        ..0 => bail!("clone: {}", std::io::Error::last_os_error()),
        0 => contained(&root, &words),
        pid => {
            let pid = rustix::process::Pid::from_raw(pid as i32).context("no pid")?;
            let ended = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
            let code = ended.and_then(|(_, status)| status.exit_status()).unwrap_or(1);
            std::process::exit(code)
        }
    }
}

fn contained(root: &std::ffi::OsStr, words: &[CString]) -> Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    rustix::mount::mount_bind(root, root)?;
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::mount::mount("proc", "/proc", "proc", MountFlags::empty(), None::<&std::ffi::CStr>)?;
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let program = words.first().context("no program")?;
    // SAFETY: the array is of strings that live through the call, and ends with a null pointer.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    bail!("execute {program:?}: {}", std::io::Error::last_os_error())
}
