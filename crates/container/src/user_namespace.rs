//! User namespaces and their ids, by children that are in them for a moment.

use std::fs::File;
use std::os::fd::OwnedFd;

use runhcs_compute::Result;

use crate::channel::Channel;
use crate::child::Child;
use crate::clone::{Side, clone};
use crate::error::Context;
use crate::ids::IdMaps;
use crate::init;
use crate::namespaces::join;

/// Makes a user namespace with these ids. The caller must have one thread only, as the engine and
/// its callers have.
pub(crate) fn with(maps: &IdMaps) -> Result<OwnedFd> {
    let what = || "make a user namespace to map ids by".to_owned();
    let (ours, mut theirs) = Channel::pair()?;
    // SAFETY: the engine and its callers start no thread before this point.
    let pid = match unsafe { clone(libc::CLONE_NEWUSER, None) }.context(what)? {
        Side::Child => {
            // It is there for as long as the other end is held.
            drop(ours);
            let _ = theirs.wait();
            init::exit();
        }
        Side::Parent { pid } => pid,
    };
    let _child = Child::new(pid);
    maps.write(pid)?;
    Ok(File::open(format!("/proc/{pid}/ns/user")).context(what)?.into())
}

/// What the files of a process in an existing user namespace tell about it.
///
/// The caller must have one thread only, as the engine and its callers have.
pub(crate) fn visit<T>(namespace: &OwnedFd, look: impl FnOnce(u32) -> Result<T>) -> Result<T> {
    let what = || "enter the user namespace to read its ids".to_owned();
    let (mut ours, mut theirs) = Channel::pair()?;
    // SAFETY: the engine and its callers start no thread before this point.
    let pid = match unsafe { clone(0, None) }.context(what)? {
        Side::Child => {
            drop(ours);
            // Before the namespace's root could look at it.
            match init::hide().and_then(|()| join(libc::CLONE_NEWUSER, "user", namespace)) {
                Ok(()) => {
                    let _ = theirs.go(0);
                    // It is there for as long as the other end is held.
                    let _ = theirs.wait();
                }
                Err(error) => theirs.fail(&error),
            }
            init::exit();
        }
        Side::Parent { pid } => pid,
    };
    let _child = Child::new(pid);
    drop(theirs);
    ours.wait()?;
    look(pid)
}
