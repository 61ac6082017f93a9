//! Giving capabilities up (capabilities(7)), for a process with one thread.

use rustix::thread::{CapabilitySet, CapabilitySets};

/// Keeps these, gains none later, and none by executing a program.
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
