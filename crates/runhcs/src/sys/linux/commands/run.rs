//! `run`: create, start, wait, delete.

use std::os::fd::OwnedFd;

use anyhow::{Result, bail};
use runhcs_compute::ExitStatus;

use crate::cli::{CreateArgs, DeleteArgs, IdArgs, RunArgs};
use crate::create::create;
use crate::globals::Globals;
use crate::sys::terminal::{LineEnds, Listener, copy_size};
use crate::sys::{commands, foreground, load_bundle};

/// Runs a container and returns its exit code.
pub fn run(globals: &Globals, args: &RunArgs) -> Result<u8> {
    let id = &args.create.id;
    let bundle = load_bundle(&args.create.bundle)?;
    let process = bundle.spec.process().as_ref();
    let terminal = process.is_some_and(|process| process.terminal() == Some(true));
    if args.detach && terminal && args.create.console_socket.is_none() {
        bail!("a detached container with a terminal needs --console-socket to send it to");
    }
    let own_terminal = terminal && args.create.console_socket.is_none();
    let listener = own_terminal.then(Listener::new).transpose()?;
    let create_args = CreateArgs {
        console_socket: listener
            .as_ref()
            .map(Listener::path)
            .or(args.create.console_socket.clone()),
        ..args.create.clone()
    };
    let created = create(globals, &create_args, || Ok(bundle))?;
    let pid = created.main.process.pid;
    let master = listener.map(Listener::receive).transpose()?;
    // Before the program can ask for it.
    master.iter().for_each(copy_size);
    let ends = created.main.guest_pid.map_or(LineEnds::Callers, |_| LineEnds::Guests);
    let status = started(globals, args, pid, master.as_ref().map(|master| (master, ends)));
    if args.detach && status.is_ok() {
        return Ok(0);
    }
    if !args.keep || status.is_err() {
        let delete = DeleteArgs { id: id.clone(), force: true };
        let deleted = crate::commands::delete::run(globals, &delete);
        // What went wrong first is what counts.
        if status.is_ok() {
            deleted?;
        }
    }
    Ok(status?.code())
}

fn started(
    globals: &Globals,
    args: &RunArgs,
    pid: u32,
    master: Option<(&OwnedFd, LineEnds)>,
) -> Result<ExitStatus> {
    let id = IdArgs { id: args.create.id.clone() };
    if args.detach {
        commands::start::run(globals, &id)?;
        return Ok(ExitStatus::Exited(0));
    }
    let (notify, _) = commands::start::release(globals, &id)?;
    foreground::wait(pid, master, notify.as_ref())
}
