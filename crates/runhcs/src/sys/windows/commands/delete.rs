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
    if existing.record.is_vm_host() && !args.force {
        refuse_guests(store, &existing.record)?;
    }
    free(store, &entry, &existing, args.force)?;
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

fn free(store: &Store, entry: &Locked, existing: &Existing, force: bool) -> Result<()> {
    let record = &existing.record;
    match existing.service.container().delete() {
        // A guest that doesn't answer must not keep anybody from clearing up.
        Err(error) if force && record.vm.is_some() => tracing::warn!(
            "{:#}; what is left of it goes with its virtual machine",
            anyhow::Error::from(error)
        ),
        deleted => deleted?,
    }
    if let Some(vm) = Vm::of(record) {
        // A host's VM goes as a whole; but its writable disk is to be whole, too.
        let op = if record.is_vm_host() { Op::UnmountDisk } else { Op::Unmount };
        // What was in a VM that is gone went with it; and a shim that is stuck is ended with its VM.
        if let Err(error) = vm.request(&record.id, op) {
            tracing::warn!("{error:#}");
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
        store.namespaces().remove(&netns.to_string_lossy(), &record.unique_id)?;
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
