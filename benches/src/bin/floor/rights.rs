//! What the configuration of `runhcs spec` takes away from a process.

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Sets limits and capabilities.
pub fn restrict() -> Result<()> {
    let files = Rlimit { current: Some(1024), maximum: Some(1024) };
    setrlimit(Resource::Nofile, files).context("limit open files")?;
    let kept = CapabilitySet::KILL | CapabilitySet::NET_BIND_SERVICE | CapabilitySet::AUDIT_WRITE;
    // Not those that this kernel doesn't know, which `all` has too.
    for (_, capability) in (CapabilitySet::all() - kept).iter_names() {
        remove_capability_from_bounding_set(capability).context("restrict the bounding set")?;
    }
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    clear_ambient_capability_set().context("clear the ambient set")?;
    set_capabilities(None, sets).context("set capabilities")?;
    set_no_new_privs(true).context("set no_new_privs")
}
