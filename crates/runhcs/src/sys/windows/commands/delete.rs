//! `delete`: frees all that a container holds.

use std::time::Duration;

use anyhow::{Result, bail};
use runhcs_compute::{ComputeSystem, Status};
use runhcs_state::{Entry, Locked, ProcessHandle, Record, Store};

use crate::cli::DeleteArgs;
use crate::existing::{Existing, config, value};
use crate::globals::Globals;
use crate::sys::create::end_vm;
use crate::sys::layers::HostLayers;
use crate::sys::process;
use crate::sys::service::vm_id;
use crate::sys::vm::{Op, VM_SHIM, Vm, remove_own_disk};

/// How long a container shim may take to end by itself once its container is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Deletes a container. With `--force` also one that runs, one whose creation was cut off, one
/// whose state is damaged, and none at all.
pub fn run(globals: &Globals, args: &DeleteArgs) -> Result<u8> {
    let store = &globals.store;
    let entry = match store.entry(&args.id).and_then(Entry::lock) {
        Ok(entry) => entry,
        Err(runhcs_state::Error::NotFound(_)) if args.force => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let existing = match Existing::open(store, &entry) {
        Ok(existing) => existing,
        Err(error) if args.force => return delete_damaged(&entry, &error),
        Err(error) => return Err(error),
    };
    if !args.force {
        match existing.status()? {
            Status::Stopped | Status::Created => {}
            Status::Creating => bail!(
                "container {} is still being created, or its creation was cut off; \
                 `delete --force {0}` clears it",
                args.id
            ),
            status => bail!("cannot delete container {} that is not stopped: {status}", args.id),
        }
    }
    delete_guests(store, &existing.record, args.force)?;
    free(store, &entry, &existing)?;
    Ok(0)
}

/// The containers in this one's VM: they would lose it.
fn delete_guests(store: &Store, host: &Record, force: bool) -> Result<()> {
    if !host.is_vm_host() {
        return Ok(());
    }
    for (_, listed) in store.list()? {
        let Ok((entry, record)) = listed else { continue };
        if record.id == host.id || record.vm != host.vm {
            continue;
        }
        let existing = Existing::open(store, &entry)?;
        if !force && existing.status()? != Status::Stopped {
            bail!(
                "container {} is in the VM of {}; delete it first, or use --force",
                record.id,
                host.id
            );
        }
        if force {
            match entry.lock() {
                Ok(entry) => free(store, &entry, &existing)?,
                Err(runhcs_state::Error::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn free(store: &Store, entry: &Locked, existing: &Existing) -> Result<()> {
    let record = &existing.record;
    existing.service.container().delete()?;
    if let Some(vm) = Vm::of(record) {
        // A host's VM goes as a whole; but its writable disk is to be whole, too.
        let op = if record.is_vm_host() { Op::UnmountDisk } else { Op::Unmount };
        match vm.request(&record.id, op) {
            Ok(_) => {}
            // What was in it went with it; and a shim that is stuck is ended with its VM.
            Err(error) => tracing::warn!("{error:#}"),
        }
    }
    if let Some(layers) = entry.get::<HostLayers>(value::RESOURCES)? {
        layers.release()?;
    }
    if record.is_vm_host() {
        end_vm(&vm_id(&record.id), entry.get::<ProcessHandle>(VM_SHIM)?)?;
        remove_own_disk(&config(entry)?)?;
    }
    if let Some(main) = existing.main {
        process::end(main.process, PATIENCE)?;
    }
    if let (true, Some(netns)) = (record.is_vm_host(), &record.netns) {
        store.namespaces().remove(&netns.to_string_lossy())?;
    }
    entry.remove()?;
    Ok(())
}

/// Frees what can be found without the damaged part.
fn delete_damaged(entry: &Locked, error: &anyhow::Error) -> Result<u8> {
    use runhcs_hcs::service::System;
    tracing::warn!("{error:#}; deleting what can be found");
    if let Some(system) = System::find(entry.id().as_str())? {
        system.end(PATIENCE)?;
    }
    if let Ok(Some(layers)) = entry.get::<HostLayers>(value::RESOURCES) {
        layers.release()?;
    }
    end_vm(&vm_id(entry.id()), entry.get::<ProcessHandle>(VM_SHIM).ok().flatten())?;
    entry.remove()?;
    Ok(0)
}
