//! `kill`: sends a signal.

use anyhow::Result;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
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
        KillSignal::Probe if status == Status::Stopped && !args.all => return Err(stopped(args)),
        KillSignal::Probe => return Ok(0),
    };
    // Without a pid namespace of its own the kernel doesn't end the container with its init.
    let kills_all = signal == Signal::KILL
        && existing.container().is_some()
        && !has_own_pid_namespace(&config(&entry)?);
    let scope = if args.all || kills_all { Scope::All } else { Scope::Init };
    match status {
        // Processes can be left in a container without a pid namespace of its own.
        Status::Stopped if existing.container().is_some() && scope == Scope::All => {}
        Status::Stopped if args.all => return Ok(0),
        Status::Stopped => return Err(stopped(args)),
        _ => {}
    }
    existing.require()?.signal(signal, scope)?;
    Ok(0)
}

/// The words are runc's, which callers match.
fn stopped(args: &KillArgs) -> anyhow::Error {
    anyhow::anyhow!("container not running: {} has stopped", args.id)
}

fn has_own_pid_namespace(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let mut namespaces = linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten();
    namespaces.any(|namespace| {
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        namespace.typ() == LinuxNamespaceType::Pid && path.is_none()
    })
}
