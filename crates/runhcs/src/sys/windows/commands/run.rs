//! `run`: create, start, wait, delete.

use anyhow::Result;
use runhcs_compute::{ComputeSystem, Scope};

use crate::cli::{DeleteArgs, IdArgs, RunArgs};
use crate::create::create;
use crate::existing::Existing;
use crate::globals::Globals;
use crate::sys::{commands, foreground, load_bundle};

/// Runs a container. In the foreground it doesn't return, for an exit code has 32 bits.
pub fn run(globals: &Globals, args: &RunArgs) -> Result<u8> {
    let id = &args.create.id;
    let created = create(globals, &args.create, || load_bundle(&args.create.bundle))?;
    let code = started(globals, args, created.main.process.pid);
    if args.detach && code.is_ok() {
        return Ok(0);
    }
    if !args.keep || code.is_err() {
        let delete = DeleteArgs { id: id.clone(), force: true };
        let deleted = commands::delete::run(globals, &delete);
        // What went wrong first is what counts.
        if code.is_ok() {
            deleted?;
        }
    }
    std::process::exit(code? as i32)
}

fn started(globals: &Globals, args: &RunArgs, pid: u32) -> Result<u32> {
    commands::start::run(globals, &IdArgs { id: args.create.id.clone() })?;
    if args.detach {
        return Ok(0);
    }
    let (_, existing) = Existing::find(&globals.store, &args.create.id)?;
    let (terminal, service) = (existing.record.terminal, existing.service);
    foreground::wait(terminal, pid, move |signal| {
        Ok(service.container().signal(signal, Scope::Init)?)
    })
}
