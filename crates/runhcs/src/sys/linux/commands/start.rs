//! `start`: releases a created container's process.

use anyhow::{Result, bail};
use runhcs_compute::{Scope, Signal, Status};
use runhcs_state::Entry;

use crate::cli::IdArgs;
use crate::existing::{Existing, config};
use crate::globals::Globals;
use crate::sys::hooks;

/// Starts a container.
pub fn run(globals: &Globals, args: &IdArgs) -> Result<u8> {
    let entry = globals.store.entry(&args.id)?.lock()?;
    let existing = Existing::open(&globals.store, &entry)?;
    match existing.status()? {
        Status::Created => start(&entry, &existing)?,
        Status::Stopped => bail!(
            "cannot start container {} that has stopped{}",
            args.id,
            existing.because(Status::Stopped)
        ),
        Status::Running => bail!("cannot start container {}: it is already running", args.id),
        status => bail!("cannot start container {} that is {status}", args.id),
    }
    Ok(0)
}

fn start(entry: &Entry, existing: &Existing) -> Result<()> {
    let system = existing.require()?;
    system.start()?;
    // The engine runs those of a container on this host.
    if let (Some(main), Some(_)) = (existing.main, existing.vm_container())
        && let Err(error) =
            hooks::run_poststart(&config(entry)?, &existing.record, main.process.pid)
    {
        system.signal(Signal::KILL, Scope::All)?;
        return Err(error);
    }
    Ok(())
}
