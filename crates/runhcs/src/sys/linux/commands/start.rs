//! `start`: releases a created container's process.

use anyhow::{Result, bail};
use runhcs_compute::{Scope, Signal, Status};
use runhcs_state::Entry;

use crate::cli::IdArgs;
use crate::existing::{Existing, Main, config};
use crate::globals::Globals;
use crate::sys::hooks;
use crate::sys::notify_socket::NotifySocket;

/// Starts a container. With somebody to notify, returns when it is ready or has ended.
pub fn run(globals: &Globals, args: &IdArgs) -> Result<u8> {
    let (socket, main) = release(globals, args)?;
    if let (Some(socket), Some(main)) = (socket, main) {
        // The container runs, whatever the service manager's socket is.
        if let Err(error) = socket.wait_until_ready(&main.process) {
            tracing::warn!("{error:#}");
        }
    }
    Ok(0)
}

/// Starts a container; returns where it notifies, and its process.
pub fn release(globals: &Globals, args: &IdArgs) -> Result<(Option<NotifySocket>, Option<Main>)> {
    let entry = globals.store.entry(&args.id)?.lock()?;
    let existing = Existing::open(&globals.store, &entry)?;
    match existing.status()? {
        Status::Created => {
            let socket = NotifySocket::open(entry.dir())?;
            start(&entry, &existing)?;
            Ok((socket, existing.main))
        }
        Status::Stopped => bail!(
            "cannot start container {} that has stopped{}",
            args.id,
            existing.because(Status::Stopped)
        ),
        Status::Running => bail!("cannot start container {}: it is already running", args.id),
        status => bail!("cannot start container {} that is {status}", args.id),
    }
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
