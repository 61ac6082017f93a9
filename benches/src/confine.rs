//! Whatever a benchmark starts ends with it, also when somebody ends the benchmark: it runs in a pid
//! namespace of its own, which the kernel clears, and in a mount namespace.

use std::ffi::CStr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// What ends a benchmark early.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Runs `body` in namespaces of its own. When this returns, everything that it started has ended;
/// if it didn't end well, `tidy` has been run after that.
///
/// # Errors
/// If the namespaces can't be made, `body` fails, or a signal ends it.
pub fn run(body: impl FnOnce() -> Result<()>, tidy: impl FnOnce()) -> Result<()> {
    let mut awaited = SigSet::from_iter(ENDING);
    awaited.add(Signal::SIGCHLD);
    awaited.thread_block().context("block signals")?;
    // SAFETY: this process has one thread, and shares no memory with another.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.context("make a pid namespace")?;
    // SAFETY: this process has one thread, so the child can do what the parent could.
    let first = match unsafe { fork() }.context("start the first process of the namespace")? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => end(be_first(&awaited, body, tidy)),
    };
    let mut ending = None;
    loop {
        let signal = awaited.wait().context("wait for signals")?;
        if signal != Signal::SIGCHLD {
            // Who asks twice doesn't want to wait.
            let how = if ending.is_some() { Signal::SIGKILL } else { signal };
            kill(first, how).context("end the benchmark")?;
            ending = Some(signal);
            continue;
        }
        match (waitpid(first, Some(WaitPidFlag::WNOHANG)), ending) {
            (Ok(WaitStatus::StillAlive), _) => {}
            (Ok(WaitStatus::Exited(_, 0)), None) => return Ok(()),
            (Ok(_), Some(signal)) => bail!("ended by {signal}"),
            // It has said why.
            (ended, None) => bail!("the benchmark failed: {ended:?}"),
            (Err(error), Some(_)) => return Err(error).context("wait for the benchmark"),
        }
    }
}

/// The first process of the pid namespace: it ends with its parent, has `body` done by a child, and
/// inherits what daemons leave. When it ends, so does all the rest.
fn be_first(
    awaited: &SigSet,
    body: impl FnOnce() -> Result<()>,
    tidy: impl FnOnce(),
) -> Result<i32> {
    set_pdeathsig(Signal::SIGKILL).context("end with the parent")?;
    prepare_mounts()?;
    // SAFETY: as above.
    let child = match unsafe { fork() }.context("start the benchmark")? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let done = awaited.thread_unblock().context("unblock signals").and_then(|()| body());
            end(done.map(|()| 0))
        }
    };
    let code = until_the_end(awaited, child)?;
    if code != 0 {
        // All but this one.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        while waitpid(None::<Pid>, None).is_ok() {}
        tidy();
    }
    Ok(code)
}

/// Reaps until the child has ended, or somebody wants it to; returns an exit code.
fn until_the_end(awaited: &SigSet, child: Pid) -> Result<i32> {
    loop {
        let signal = awaited.wait().context("wait for signals")?;
        if signal != Signal::SIGCHLD {
            return Ok(128 + signal as i32);
        }
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == child => return Ok(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                    return Ok(128 + signal as i32);
                }
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) => {}
                Err(error) => return Err(error).context("wait for processes"),
            }
        }
    }
}

/// Ends a child without what is its parent's to do.
fn end(outcome: Result<i32>) -> ! {
    let code = outcome.unwrap_or_else(|error| {
        eprintln!("Error: {error:?}");
        1
    });
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

fn prepare_mounts() -> Result<()> {
    // Not the parent's, who removes directories on which something is mounted here.
    // SAFETY: this process has one thread, and shares no file system state with another.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("make a mount namespace")?;
    // What is mounted here is nobody else's.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).context("make mounts private")?;
    let none = None::<&CStr>;
    rustix::mount::mount("proc", "/proc", "proc", MountFlags::empty(), none)
        .context("mount the namespace's /proc")?;
    // ip-netns(8) makes files there, which would stay.
    std::fs::create_dir_all("/run/netns").context("make /run/netns")?;
    rustix::mount::mount("tmpfs", "/run/netns", "tmpfs", MountFlags::empty(), none)
        .context("mount a tmpfs for network namespaces")?;
    leave_unified_hierarchy()
}

/// crun 1.8 refuses a host that has both versions of cgroups, so everybody is measured without the
/// second.
fn leave_unified_hierarchy() -> Result<()> {
    let unified = "/sys/fs/cgroup/unified";
    if !Path::new(unified).exists() {
        return Ok(());
    }
    rustix::mount::unmount(unified, UnmountFlags::empty()).context("unmount the v2 hierarchy")
}

/// Makes a directory for everybody's state, and mounts a tmpfs there, as /run is one. It is there until
/// the mount namespace ends, so that what a benchmark has left can be found.
pub fn mount_state(path: &Path) -> Result<()> {
    std::fs::create_dir(path)?;
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), None::<&CStr>)
        .context("mount a tmpfs for the state")
}
