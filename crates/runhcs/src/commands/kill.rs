//! `kill`: sends a signal.

use anyhow::{Result, bail};
use runhcs_compute::{Scope, Status};

use crate::cli::KillArgs;
use crate::existing::Existing;
use crate::globals::Globals;

/// Sends a signal to a container's init process, or to all its processes.
pub fn run(globals: &Globals, args: &KillArgs) -> Result<u8> {
    let (_, existing) = Existing::find(&globals.store, &args.id)?;
    let scope = if args.all { Scope::All } else { Scope::Init };
    match existing.status()? {
        Status::Stopped if args.all && existing.service.outlives_main_process() => {}
        Status::Stopped if args.all => return Ok(0),
        Status::Stopped => bail!(
            "container not running: {} has stopped{}",
            args.id,
            existing.because(Status::Stopped)
        ),
        _ => {}
    }
    existing.require()?.signal(args.signal, scope)?;
    Ok(0)
}
