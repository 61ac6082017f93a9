//! `delete`: frees all that a container holds.

use anyhow::{Result, bail};
use runhcs_compute::Status;
use runhcs_state::{Entry, Record, Store};

use crate::cli::DeleteArgs;
use crate::existing::Existing;
use crate::globals::Globals;
use crate::sys::commands::delete::{free, free_damaged};

/// Deletes a container. With `--force` also one that runs, one whose creation was cut off, one
/// whose state is damaged, and none at all. With the owner of a VM the VM goes, and others in it
/// have stopped then.
pub fn run(globals: &Globals, args: &DeleteArgs) -> Result<u8> {
    let store = &globals.store;
    let entry = match store.entry(&args.id).and_then(Entry::lock) {
        Ok(entry) => entry,
        Err(runhcs_state::Error::NotFound(_)) if args.force => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let existing = match Existing::open(store, &entry) {
        Ok(existing) => existing,
        Err(error) if args.force => {
            tracing::warn!("{error:#}; deleting what can be found");
            free_damaged(&entry)?;
            entry.remove()?;
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    if !args.force {
        match existing.status()? {
            Status::Stopped | Status::Created => {}
            Status::Creating => bail!("{}", existing.unfinished()),
            status => bail!("cannot delete container {} that is not stopped: {status}", args.id),
        }
    }
    if existing.record.is_vm_host() && !args.force {
        refuse_guests(store, &existing.record)?;
    }
    free(store, &entry, &existing, args.force)?;
    entry.remove()?;
    Ok(0)
}

/// Containers that run in this one's VM would be stopped with it.
fn refuse_guests(store: &Store, host: &Record) -> Result<()> {
    for (_, listed) in store.list()? {
        let Ok((entry, record)) = listed else { continue };
        if record.id == host.id || record.vm != host.vm {
            continue;
        }
        if Existing::open(store, &entry)?.status()? != Status::Stopped {
            bail!(
                "container {} is in the VM of {}; delete it first, or stop it with the VM by --force",
                record.id,
                host.id
            );
        }
    }
    Ok(())
}
