//! `pause`: freezes a container's processes.

use anyhow::Result;
use runhcs_compute::Status;

use crate::cli::IdArgs;
use crate::existing::Existing;
use crate::globals::Globals;

/// Pauses a container.
pub fn run(globals: &Globals, args: &IdArgs) -> Result<u8> {
    let (_, existing) = Existing::find(&globals.store, &args.id)?;
    existing.expect("pause", &[Status::Running, Status::Created])?;
    existing.require()?.pause()?;
    Ok(0)
}
