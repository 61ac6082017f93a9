//! `update`: changes a container's limits.

use anyhow::Result;
use runhcs_compute::Status;

use crate::existing::Existing;
use crate::globals::Globals;
use crate::sys::cli::UpdateArgs;
use crate::sys::vm_group;

/// Sets the limits that are given; the others stay as they are.
pub fn run(globals: &Globals, args: &UpdateArgs) -> Result<u8> {
    let resources = args.read()?;
    let (entry, existing) = Existing::find(&globals.store, &args.id)?;
    existing.expect("update", &[Status::Created, Status::Running, Status::Paused])?;
    let (cache, bandwidth) = (args.l3_cache_schema.as_deref(), args.mem_bw_schema.as_deref());
    if cache.or(bandwidth).is_some() {
        existing.update_rdt(cache, bandwidth)?;
    }
    existing.update(&resources)?;
    if existing.record.is_vm_host() {
        vm_group::update(&entry, &resources, existing.record.sandbox_id.is_some())?;
    }
    Ok(0)
}
