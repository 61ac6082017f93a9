//! `exec`: a further process in a container.

use anyhow::{Result, bail};
use oci_spec::runtime::{Process, Spec};
use runhcs_compute::Status;

use crate::cli::{ExecArgs, split_id};
use crate::existing::{Existing, config};
use crate::globals::Globals;
use crate::sys::container_shim::{self, Further};
use crate::sys::foreground::Foreground;
use crate::{further_process, pid_file};

/// Runs a process in a container. In the foreground it doesn't return, for an exit code has
/// 32 bits.
pub fn run(globals: &Globals, args: &ExecArgs) -> Result<u8> {
    let (id, program) = split_id(&args.operands)?;
    let (entry, existing) = Existing::find(&globals.store, &id)?;
    match existing.status()? {
        Status::Running => {}
        Status::Stopped => bail!("cannot exec in a stopped container: {id}"),
        status => bail!("cannot exec in container {id} that is {status}"),
    }
    let process = process(args, program, &config(&entry)?)?;
    let target = container_shim::Target { id: &id, exec: Some(&process) };
    let has_console = process.terminal() == Some(true);
    let foreground = (!args.detach).then(|| Foreground::begin(has_console));
    let shim = container_shim::launch(globals, &target, args.shim_log.as_ref())?;
    let pid = shim.leave();
    if let Some(path) = &args.pid_file {
        pid_file::write(path, pid)?;
    }
    let Some(foreground) = foreground else { return Ok(0) };
    // The shim recorded it before it said that it runs; nothing is left of a process that has ended.
    let further = entry.get::<Further>(&Further::name(pid)).ok().flatten();
    let service = existing.service;
    let code = foreground.wait(pid, move |told| match &further {
        Some(further) => service.container().tell(further.guest_pid, told),
        None => Ok(()),
    })?;
    std::process::exit(code as i32)
}

/// The process to run: a document, or the container's own process with other arguments.
fn process(args: &ExecArgs, program: &[String], spec: &Spec) -> Result<Process> {
    let is_linux = spec.linux().is_some();
    let load = runhcs_spec::windows::load_process;
    let mut process = further_process::describe(args, program, spec, load)?;
    match &args.user {
        Some(ids) if is_linux => further_process::set_ids(&mut process, ids)?,
        Some(name) => {
            let mut user = process.user().clone();
            user.set_username(Some(name.clone()));
            process.set_user(user);
        }
        None => {}
    }
    runhcs_spec::windows::validate_process(&process, "process.", is_linux)?;
    Ok(process)
}
