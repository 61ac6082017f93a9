//! User namespaces that have ids and no process.

use std::fs::File;
use std::os::fd::OwnedFd;

use runhcs_compute::Result;

use crate::channel::Channel;
use crate::clone::{Side, clone};
use crate::error::Context;
use crate::ids::IdMaps;
use crate::init;
use crate::plan::Child;

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
