//! `run`: create, start, wait, delete.

use anyhow::Result;
use runhcs_compute::{ComputeSystem, Scope};

use crate::cli::{DeleteArgs, IdArgs, RunArgs};
use crate::create::create;
use crate::existing::Existing;
use crate::globals::Globals;
use crate::sys::foreground::{Foreground, Told};
use crate::sys::{commands, load_bundle};

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
        let deleted = crate::commands::delete::run(globals, &delete);
        // What went wrong first is what counts.
        if code.is_ok() {
            deleted?;
        }
    }
    std::process::exit(code? as i32)
}

fn started(globals: &Globals, args: &RunArgs, shim: u32) -> Result<u32> {
    let id = &args.create.id;
    let start = || commands::start::run(globals, &IdArgs { id: id.clone() });
    if args.detach {
        return start().map(u32::from);
    }
    let (_, created) = Existing::find(&globals.store, id)?;
    let foreground = Foreground::begin(created.record.terminal);
    start()?;
    let (_, Existing { main, service, .. }) = Existing::find(&globals.store, id)?;
    let guest_pid = main.and_then(|main| main.guest_pid);
    foreground.wait(shim, move |told| match (guest_pid, told) {
        (Some(pid), told) => service.container().tell(pid, told),
        // A container without a process says itself what it can be told.
        (None, Told::Signal(signal)) => Ok(service.container().signal(signal, Scope::Init)?),
        (None, Told::Size(_)) => Ok(()),
    })
}
