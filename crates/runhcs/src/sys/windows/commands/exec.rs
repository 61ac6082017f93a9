//! `exec`: a further process in a container.

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{Process, Spec};
use runhcs_compute::Status;

use crate::cli::{ExecArgs, split_id};
use crate::existing::{Existing, config};
use crate::globals::Globals;
use crate::pid_file;
use crate::sys::container_shim::{self, Further};
use crate::sys::foreground::Foreground;

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
    let mut process = match &args.process {
        Some(path) => runhcs_spec::windows::load_process(path)?,
        None => {
            if program.is_empty() {
                bail!("exec needs a program to run, or --process");
            }
            let mut process = spec.process().clone().unwrap_or_default();
            process.set_args(Some(program.to_vec()));
            process.set_command_line(None);
            process.set_terminal(Some(false));
            process
        }
    };
    if args.tty {
        process.set_terminal(Some(true));
    }
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(args.env.iter().cloned());
    process.set_env(Some(env));
    if let Some(name) = &args.user {
        let mut user = process.user().clone();
        if is_linux {
            let (uid, gid) = parse_user(name)?;
            user.set_uid(uid);
            if let Some(gid) = gid {
                user.set_gid(gid);
            }
        } else {
            user.set_username(Some(name.clone()));
        }
        process.set_user(user);
    }
    runhcs_spec::windows::validate_process(&process, "process.", is_linux)?;
    Ok(process)
}

fn parse_user(text: &str) -> Result<(u32, Option<u32>)> {
    let number = |part: &str| {
        part.parse::<u32>().with_context(|| {
            format!("--user {text:?} is not UID[:GID]; names can't be looked up here")
        })
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}
