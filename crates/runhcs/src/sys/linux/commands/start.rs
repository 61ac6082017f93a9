//! `start`: releases a created container's process.

use anyhow::{Result, anyhow};
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
    // The engine looks at a container on this host by itself, and nothing comes before that but
    // what is done for somebody to notify.
    let engine_looks = existing.container().is_some() && existing.main.is_some();
    if !engine_looks || NotifySocket::is_asked_for() {
        match existing.status()? {
            Status::Created => {}
            status => return Err(refusal(&existing, status)),
        }
    }
    let socket = NotifySocket::open(entry.dir())?;
    match start(&entry, &existing) {
        Ok(()) => Ok((socket, existing.main)),
        Err(error) => Err(match error.downcast_ref() {
            Some(runhcs_compute::Error::InvalidStatus { status, .. }) => {
                refusal(&existing, *status)
            }
            _ => error,
        }),
    }
}

fn refusal(existing: &Existing, status: Status) -> anyhow::Error {
    let id = &existing.record.id;
    match status {
        Status::Running => anyhow!("cannot start container {id}: it is already running"),
        Status::Stopped => {
            anyhow!("cannot start container {id} that has stopped{}", existing.because(status))
        }
        status => anyhow!("cannot start container {id} that is {status}"),
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
