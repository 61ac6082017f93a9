//! The least that a container costs: `floor ROOT PROGRAM [ARGUMENT…]` clones into the namespaces
//! that the others use, pivots into ROOT, mounts /proc, executes PROGRAM and waits for it. No
//! configuration, no state, no control groups, no protection: nobody can be faster and run a
//! container.
//!
//! With `--configured` it does what the configuration of `runhcs spec` asks for, too, and nothing
//! that it doesn't: control groups with rules for devices, all mounts, devices, masks, limits and
//! capabilities. What a runtime takes more is its own: reading a configuration, keeping state,
//! protecting itself.

mod groups;
mod mounts;
mod rights;

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use groups::Groups;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let configured = arguments.next_if(|first| first == "--configured").is_some();
    let root = arguments.next().context("usage: floor [--configured] ROOT PROGRAM [ARGUMENT…]")?;
    let words: Vec<CString> =
        arguments.map(|word| CString::new(word.into_vec())).collect::<Result<_, _>>()?;
    let configured =
        configured.then(|| anyhow::Ok((Groups::plan()?, std::io::pipe()?))).transpose()?;
    // As the configuration of `runhcs spec`.
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::SIGCHLD;
    // SAFETY: without a stack and CLONE_VM this is fork(2) with namespaces; there is one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match pid {
        ..0 => bail!("clone: {}", std::io::Error::last_os_error()),
        0 => {
            let Err(error) = match configured {
                None => contained(&root, &words),
                Some((groups, (ready, made))) => {
                    // Or the other side's end would not be noticed.
                    drop(made);
                    // They are the parent's to remove.
                    contained_as_configured(&root, &words, &ManuallyDrop::new(groups), ready)
                }
            };
            eprintln!("floor: {error:#}");
            // SAFETY: _exit(2) has no preconditions.
            unsafe { libc::_exit(1) }
        }
        pid => {
            let groups = configured.map(|(groups, (ready, mut made))| {
                drop(ready);
                let go = |()| made.write_all(b"!").context("let the container go on");
                (groups.make().and_then(go), groups)
            });
            let pid = rustix::process::Pid::from_raw(pid as i32).context("no pid")?;
            let ended = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
            if let Some((outcome, groups)) = groups {
                drop(groups);
                outcome?;
            }
            let code = ended.and_then(|(_, status)| status.exit_status()).unwrap_or(1);
            std::process::exit(code)
        }
    }
}

fn contained(root: &OsStr, words: &[CString]) -> Result<Infallible> {
    begin_root(root)?;
    pivot(root)?;
    rustix::mount::mount("proc", "/proc", "proc", MountFlags::empty(), None::<&CStr>)?;
    execute(words)
}

fn contained_as_configured(
    root: &OsStr,
    words: &[CString],
    groups: &Groups,
    mut ready: std::io::PipeReader,
) -> Result<Infallible> {
    rustix::process::setsid()?;
    runhcs_container::loopback_up()?;
    rustix::system::sethostname(b"runhcs")?;
    begin_root(root)?;
    rustix::process::chdir(root)?;
    mounts::file_systems()?;
    // Groups are made meanwhile.
    ready.read_exact(&mut [0]).context("wait for control groups")?;
    drop(ready);
    groups.enter()?;
    mounts::groups(groups)?;
    mounts::devices()?;
    pivot(root)?;
    mounts::protect()?;
    rights::restrict()?;
    execute(words)
}

fn begin_root(root: &OsStr) -> Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    rustix::mount::mount_bind(root, root).context("mount the root")
}

fn pivot(root: &OsStr) -> Result<()> {
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context("detach the old root")
}

/// Returns only what kept it from that.
fn execute(words: &[CString]) -> Result<Infallible> {
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let program = words.first().context("no program")?;
    // SAFETY: the array is of strings that live through the call, and ends with a null pointer.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    bail!("execute {program:?}: {}", std::io::Error::last_os_error())
}
