//! `resume`: thaws a paused container's processes.

use anyhow::Result;
use runhcs_compute::Status;

use crate::cli::IdArgs;
use crate::existing::Existing;
use crate::globals::Globals;

/// Resumes a container.
pub fn run(globals: &Globals, args: &IdArgs) -> Result<u8> {
    let (_, existing) = Existing::find(&globals.store, &args.id)?;
    existing.expect("resume", &[Status::Paused])?;
    existing.require()?.resume()?;
    Ok(0)
}
