//! `kill`: sends a signal.

use anyhow::Result;
use runhcs_compute::{Scope, Signal, Status};

use crate::cli::{KillArgs, KillSignal};
use crate::existing::{Existing, config};
use crate::globals::Globals;

/// Sends a signal to a container's init process, or to all its processes.
pub fn run(globals: &Globals, args: &KillArgs) -> Result<u8> {
    let (entry, existing) = Existing::find(&globals.store, &args.id)?;
    let status = existing.status()?;
    let signal = match args.signal {
        KillSignal::Send(signal) => signal,
        KillSignal::Probe if status == Status::Stopped && !args.all => {
            return Err(stopped(args, &existing));
        }
        KillSignal::Probe => return Ok(0),
    };
    let outlives = existing.service.outlives_main_process();
    // The kernel ends the others with the main one only in a pid namespace of their own.
    let kills_all =
        signal == Signal::KILL && outlives && !runhcs_spec::has_own_pid_namespace(&config(&entry)?);
    let scope = if args.all || kills_all { Scope::All } else { Scope::Init };
    match status {
        Status::Stopped if scope == Scope::All && outlives => {}
        Status::Stopped if args.all => return Ok(0),
        Status::Stopped => return Err(stopped(args, &existing)),
        _ => {}
    }
    existing.require()?.signal(signal, scope)?;
    Ok(0)
}

/// The words are runc's, which callers match.
fn stopped(args: &KillArgs, existing: &Existing) -> anyhow::Error {
    let why = existing.because(Status::Stopped);
    anyhow::anyhow!("container not running: {} has stopped{why}", args.id)
}
