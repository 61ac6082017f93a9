//! The VM shim: the process that owns a utility VM, which ends with it, and does all work on the
//! VM's hardware. It ends when its VM does.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::machine::Machine;
use super::{CONNECT, Op, Request};
use crate::globals::Globals;
use crate::logging;
use crate::sys::cli::VmShimArgs;
use crate::sys::pipe::{self, Connection, Listener};
use crate::sys::verdict;

/// How long to wait before accepting is tried again after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// What the hidden verb `vm-shim` does.
pub fn run(globals: &Globals, args: &VmShimArgs) -> Result<u8> {
    logging::about_vm(&args.id);
    let reporter = verdict::Reporter::take()?;
    let started = start(globals, args);
    reporter.report(&started)?;
    let (mut listener, machine) = started?;
    tracing::info!("the virtual machine runs");
    let machine = Arc::new(machine);
    let served = Arc::clone(&machine);
    thread::spawn(move || {
        loop {
            match listener.accept() {
                Ok(connection) => {
                    let machine = Arc::clone(&served);
                    thread::spawn(move || serve(&machine, &connection));
                }
                Err(error) => {
                    tracing::warn!("wait for requests: {error}");
                    thread::sleep(PAUSE);
                }
            }
        }
    });
    let end = machine.wait();
    match &end {
        Ok(status) => tracing::info!(how = ?status.exit_type, "the virtual machine has ended"),
        Err(error) => tracing::error!("{error}"),
    }
    machine.clean_up();
    end?;
    Ok(0)
}

/// Listens before there is anything to ask for, then brings the VM up.
fn start(globals: &Globals, args: &VmShimArgs) -> Result<(Listener, Machine)> {
    let entry = globals.store.entry(&args.id)?;
    let record = entry.record()?;
    let listener =
        Listener::bind(&pipe::of_vm(&record.unique_id)).context("listen for requests")?;
    let machine = Machine::start(globals, &record, &entry, args.console.as_deref())?;
    Ok((listener, machine))
}

/// Serves one request.
fn serve(machine: &Machine, connection: &Connection) {
    let outcome = hear(connection).and_then(|request| grant(machine, &request));
    let answer = match &outcome {
        Ok(_) => verdict::READY.to_vec(),
        Err(error) => format!("{error:#}").into_bytes(),
    };
    let sent = connection.send(&answer, CONNECT);
    match (outcome, sent) {
        // What was created stays open until the client says, by closing, that somebody else has it
        // open.
        (Ok(created), Ok(())) => {
            let _ = connection.receive(None);
            drop(created);
        }
        (Ok(_), Err(error)) => tracing::warn!("answer a request: {error}"),
        (Err(error), _) => tracing::warn!("{error:#}"),
    }
}

fn hear(connection: &Connection) -> Result<Request> {
    let text = connection.receive(Some(CONNECT)).context("hear a request")?;
    if text.is_empty() {
        bail!("a client closed without a request");
    }
    serde_json::from_slice(&text).context("understand a request")
}

fn grant(machine: &Machine, request: &Request) -> Result<Option<runhcs_hcs::service::System>> {
    tracing::info!(op = ?request.op, id = request.id.as_str(), "request");
    match request.op {
        Op::Create => machine.create_container(&request.id).map(Some),
        Op::Sync => machine.sync_network().map(|()| None),
        Op::Unmount => machine.release(&request.id, true).map(|()| None),
        Op::UnmountDisk => machine.release(&request.id, false).map(|()| None),
    }
}
