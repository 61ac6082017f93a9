//! `start`: starts a created container, and its process through the container shim.

use anyhow::{Context, Result, bail};
use runhcs_compute::{Scope, Signal, Status};
use runhcs_state::Locked;

use crate::cli::IdArgs;
use crate::existing::{Existing, Main, config, value};
use crate::globals::Globals;
use crate::sys::container_shim;

/// Starts a container.
pub fn run(globals: &Globals, args: &IdArgs) -> Result<u8> {
    let entry = globals.store.entry(&args.id)?.lock()?;
    let existing = Existing::open(&globals.store, &entry)?;
    match existing.status()? {
        Status::Created => start(&entry, &existing)?,
        Status::Stopped => bail!("cannot start container {} that has stopped", args.id),
        Status::Running => bail!("cannot start container {}: it is already running", args.id),
        status => bail!("cannot start container {} that is {status}", args.id),
    }
    Ok(0)
}

fn start(entry: &Locked, existing: &Existing) -> Result<()> {
    let system = existing.require()?;
    system.start()?;
    if config(entry)?.process().is_none() {
        return Ok(());
    }
    let started = container_shim::start(&existing.record.unique_id).and_then(|guest_pid| {
        let main = existing.main.context("the container has no shim")?;
        Ok(entry.put(value::MAIN, &Main { guest_pid: Some(guest_pid), ..main })?)
    });
    if let Err(error) = started {
        // Without its process it is of no use to anybody; what went wrong first is what counts.
        if let Err(error) = system.signal(Signal::KILL, Scope::All) {
            tracing::warn!("end the container that couldn't be started: {error}");
        }
        return Err(error);
    }
    Ok(())
}
