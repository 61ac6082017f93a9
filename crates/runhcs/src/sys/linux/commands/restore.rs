//! `restore`: a container from a checkpoint's files, by CRIU.

use anyhow::{Context, Result, bail};

use crate::cli::{CreateArgs, DeleteArgs};
use crate::create::create;
use crate::globals::Globals;
use crate::sys::cli::RestoreArgs;
use crate::sys::{foreground, load_bundle};

/// Restores a container and returns its exit code, or 0 at once if detached.
pub fn run(globals: &Globals, args: &RestoreArgs) -> Result<u8> {
    if args.no_subreaper && !args.detach {
        bail!("--no-subreaper goes with --detach: otherwise there is a process to wait for");
    }
    if !args.no_subreaper {
        // CRIU makes the process and ends: it becomes the child of whoever adopts it.
        let own = Some(rustix::process::getpid());
        rustix::process::set_child_subreaper(own).context("adopt the container's process")?;
    }
    let create_args = CreateArgs {
        id: args.id.clone(),
        bundle: args.bundle.clone(),
        console_socket: args.console_socket.clone(),
        pidfd_socket: None,
        pid_file: args.pid_file.clone(),
        no_pivot: args.no_pivot,
        no_new_keyring: true,
        preserve_fds: 0,
        // Decided as for `create`: a VM that is asked for is refused rather than left out.
        isolation: None,
        host: None,
        shim_log: None,
        vm_log: None,
        vm_console: None,
        restore: Some(args.options(&globals.args.system.criu)?),
    };
    let created = create(globals, &create_args, || load_bundle(&args.bundle))?;
    if args.detach {
        return Ok(0);
    }
    let status = foreground::wait(created.main.process.pid, None, None);
    let deleted =
        crate::commands::delete::run(globals, &DeleteArgs { id: args.id.clone(), force: true });
    let status = status?;
    deleted?;
    Ok(status.code())
}
