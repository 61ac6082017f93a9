//! `resize-tty`: sets the size of a process's console.

use anyhow::{Context, Result, bail};
use runhcs_compute::Status;
use runhcs_hcs::schema::ConsoleSize;

use crate::cli::ResizeTtyArgs;
use crate::existing::Existing;
use crate::globals::Globals;
use crate::sys::container_shim::Further;

/// Sets the size of the console of a container's init process, or of another of its processes by
/// the pid of its shim.
pub fn run(globals: &Globals, args: &ResizeTtyArgs) -> Result<u8> {
    let (entry, existing) = Existing::find(&globals.store, &args.id)?;
    if existing.status()? == Status::Stopped {
        bail!("container not running: {} has stopped", args.id);
    }
    let main = existing.main.context("the container has no process yet")?;
    let guest_pid = match args.pid {
        None => main.guest_pid,
        Some(pid) if pid == main.process.pid => main.guest_pid,
        Some(pid) => {
            let further = entry.get::<Further>(&Further::name(pid))?;
            let further = further.with_context(|| {
                format!("process {pid} doesn't stand for one of container {}", args.id)
            })?;
            // Another process may have the pid of a shim that was killed.
            further.process.is_alive()?.then_some(further.guest_pid)
        }
    };
    let guest_pid = guest_pid.context("the process does not run")?;
    let process =
        existing.service.container().open("resize a terminal of")?.open_process(guest_pid)?;
    process.resize(ConsoleSize { height: args.height, width: args.width })?;
    Ok(0)
}
