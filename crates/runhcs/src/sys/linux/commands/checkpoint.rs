//! `checkpoint`: writes a container's processes into files, by CRIU.

use anyhow::{Result, bail};
use runhcs_compute::Status;

use crate::cli::DeleteArgs;
use crate::commands;
use crate::existing::{Existing, config};
use crate::globals::Globals;
use crate::sys::cli::CheckpointArgs;

/// Checkpoints a container, which is deleted then unless it goes on.
pub fn run(globals: &Globals, args: &CheckpointArgs) -> Result<u8> {
    let (entry, existing) = Existing::find(&globals.store, &args.id)?;
    existing.expect("checkpoint", &[Status::Running, Status::Paused])?;
    let Some(container) = existing.container() else {
        bail!(
            "container {} is in a VM: its processes are the guest kernel's, which CRIU on this \
             host can't reach",
            args.id
        );
    };
    let options = args.options(&globals.args.system.criu)?;
    container.checkpoint(&config(&entry)?, &options)?;
    if options.ends_container() {
        drop(entry);
        commands::delete::run(globals, &DeleteArgs { id: args.id.clone(), force: true })?;
    }
    Ok(0)
}
