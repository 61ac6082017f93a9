//! Giving capabilities up (capabilities(7)), which each thread has for itself.

use rustix::thread::{CapabilitySet, CapabilitySets};

/// Has this thread, and those that it starts from now on, keep these, gain none later, and none by
/// executing a program.
pub fn keep(kept: CapabilitySet) -> rustix::io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    drop_bounding(&kept)?;
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)
}

/// Leaves no others in the bounding set.
pub fn drop_bounding(kept: &CapabilitySet) -> rustix::io::Result<()> {
    for capability in CapabilitySet::all().difference(*kept).iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // A capability that this kernel doesn't have.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Runs something on a thread without capabilities. The threads that it starts have none either.
///
/// # Errors
/// What it returns, or if there can't be such a thread.
pub fn without<T: Send>(what: impl FnOnce() -> std::io::Result<T> + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let bare = || {
            keep(CapabilitySet::empty())?;
            what()
        };
        let thread = std::thread::Builder::new().spawn_scoped(scope, bare)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
