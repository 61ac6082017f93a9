//! A container's process, cloned into the namespaces that are new and those that it joins.
//!
//! Most containers are cloned directly. User namespaces need a process in between: what an
//! ordinary user may join is owned by the user namespace to be joined, which takes the process
//! that joins it away from the caller's for good; what is joined beside a *new* user namespace has
//! to be joined before that is made, because it belongs to another; and from within a user
//! namespace there is no way back to a pid namespace outside of it. And a process that is to appear
//! in a pid namespace beside others must have left the host by then: whoever has CAP_SYS_PTRACE
//! there gets at its root and its descriptors however well it is hidden.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use runhcs_compute::Result;
use rustix::process::{Pid, WaitOptions, geteuid, waitpid};

use crate::channel::Channel;
use crate::clone::{Side, clone, clone_sibling};
use crate::error::Context;
use crate::namespaces::Joined;
use crate::{InheritedFds, ids, init, namespaces, program};

/// The descriptors that a new process keeps, besides stdio.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Those that it uses until it executes its program.
    pub own: Vec<RawFd>,
    /// Those after stdio that are for its program.
    pub preserved: InheritedFds,
}

impl Kept {
    fn close_others(&self, more: impl IntoIterator<Item = RawFd>) {
        let keep = self.own.iter().copied().chain(more).collect();
        program::close_all_but(keep, self.preserved);
    }
}

/// Clones a process into new namespaces, and into those of `joined`, with the descriptors of
/// `kept` only: in the child, what owns others must be neither used nor dropped. There, `joined`
/// holds what it still has to join itself.
///
/// `first` runs before anything is joined, if there is a process in between.
///
/// # Safety
/// The process must have one thread only.
pub(crate) unsafe fn spawn(
    joined: &mut Joined,
    new: i32,
    cgroup: Option<BorrowedFd<'_>>,
    kept: &Kept,
    first: impl FnOnce() -> Result<()>,
) -> Result<Side> {
    if geteuid().is_root() {
        // An ordinary user's process has to stay within reach of who maps its ids.
        init::hide()?;
    }
    let joins = |kind: i32| joined.iter().any(|(flags, ..)| flags & kind != 0);
    let between = (joins(libc::CLONE_NEWUSER) && (new != 0 || !geteuid().is_root()))
        || (new & libc::CLONE_NEWUSER != 0 && !joined.is_empty())
        || (joins(libc::CLONE_NEWPID) && (joins(libc::CLONE_NEWNS) || ids::in_user_namespace()));
    if !between {
        let own = join_pid_namespace(joined)?;
        // SAFETY: the caller has one thread only.
        let side = unsafe { clone(new, cgroup) }.context(what)?;
        if side == Side::Child {
            joined.retain(|(flag, ..)| *flag != libc::CLONE_NEWPID);
            kept.close_others(descriptors(joined));
            // Closed just now.
            std::mem::forget(own);
        } else if let Some(own) = own {
            namespaces::join(libc::CLONE_NEWPID, "own pid", &own)?;
        }
        return Ok(side);
    }
    let (mut ours, mut theirs) = Channel::pair()?;
    // SAFETY: the caller has one thread only.
    let Side::Parent { pid: between } = unsafe { clone(0, cgroup) }.context(what)? else {
        drop(ours);
        kept.close_others(descriptors(joined).chain([theirs.as_raw_fd()]));
        let outcome = first().and_then(|()| join_all(joined)).and_then(|()| {
            // SAFETY: this process is a fresh copy of the caller's only thread.
            unsafe { clone_sibling(new) }.context(what)
        });
        match outcome {
            Ok(Side::Child) => {
                joined.clear();
                return Ok(Side::Child);
            }
            Ok(Side::Parent { pid }) => {
                let _ = theirs.go(pid);
            }
            Err(error) => theirs.fail(&error),
        }
        init::exit();
    };
    drop(theirs);
    let outcome = ours.wait();
    if let Some(between) = Pid::from_raw(between as i32) {
        let _ = waitpid(Some(between), WaitOptions::empty());
    }
    Ok(Side::Parent { pid: outcome? })
}

fn descriptors(joined: &Joined) -> impl Iterator<Item = RawFd> {
    joined.iter().map(|(_, _, namespace)| namespace.as_raw_fd())
}

fn what() -> String {
    "clone the container's process".into()
}

/// Joins everything: what takes the caller's privilege first, then the user namespace, as root of
/// it, then what that one owns.
pub(crate) fn join_all(joined: &Joined) -> Result<()> {
    let (user, others): (Vec<_>, Vec<_>) =
        joined.iter().partition(|(flag, ..)| *flag == libc::CLONE_NEWUSER);
    let mut later = Vec::new();
    for (flag, name, fd) in others {
        match namespaces::join(*flag, name, fd) {
            Err(_) if !user.is_empty() => later.push((*flag, *name, fd)),
            other => other?,
        }
    }
    for (flag, name, fd) in user {
        namespaces::join(*flag, name, fd)?;
        init::become_root()?;
    }
    later.into_iter().try_for_each(|(flag, name, fd)| namespaces::join(flag, name, fd))
}

/// Puts future children into the pid namespace to be joined; returns the caller's own to go back.
fn join_pid_namespace(joined: &Joined) -> Result<Option<OwnedFd>> {
    let Some((flag, name, fd)) = joined.iter().find(|(flag, ..)| *flag == libc::CLONE_NEWPID)
    else {
        return Ok(None);
    };
    let own =
        std::fs::File::open("/proc/self/ns/pid").context(|| "open the own pid namespace".into())?;
    namespaces::join(*flag, name, fd)?;
    Ok(Some(own.into()))
}
