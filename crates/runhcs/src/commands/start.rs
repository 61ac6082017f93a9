//! `start`: releases a created container's process.

use anyhow::{Result, bail};
use runhcs_compute::Status;

use crate::cli::IdArgs;
use crate::existing::Existing;
use crate::globals::Globals;

/// Starts a container.
pub fn run(globals: &Globals, args: &IdArgs) -> Result<u8> {
    let entry = globals.store.entry(&args.id)?.lock()?;
    let existing = Existing::open(&globals.store, &entry)?;
    match existing.status()? {
        Status::Created => existing.require()?.start()?,
        Status::Stopped => bail!("cannot start container {} that has stopped", args.id),
        Status::Running => bail!("cannot start container {}: it is already running", args.id),
        status => bail!("cannot start container {} that is {status}", args.id),
    }
    Ok(0)
}
