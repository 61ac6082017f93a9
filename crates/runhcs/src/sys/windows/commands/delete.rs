//! Freeing all that a container holds.

use std::time::Duration;

use anyhow::Result;
use runhcs_compute::ComputeSystem;
use runhcs_state::{Locked, ProcessHandle, Store};

use crate::existing::{Existing, config, value};
use crate::sys::create::end_vm;
use crate::sys::layers::HostLayers;
use crate::sys::process;
use crate::sys::service::vm_id;
use crate::sys::vm::{Op, VM_SHIM, Vm, remove_own_disk};

/// How long a container shim may take to end by itself once its container is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Frees all that it holds; its entry is left.
pub fn free(store: &Store, entry: &Locked, existing: &Existing, force: bool) -> Result<()> {
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
    Ok(())
}

/// Frees what can be found of a container whose state is damaged.
pub fn free_damaged(entry: &Locked) -> Result<()> {
    use runhcs_hcs::service::System;
    if let Some(system) = System::find(entry.id().as_str())? {
        system.end(PATIENCE)?;
    }
    if let Ok(Some(layers)) = entry.get::<HostLayers>(value::RESOURCES) {
        layers.release()?;
    }
    end_vm(&vm_id(entry.id()), entry.get::<ProcessHandle>(VM_SHIM).ok().flatten())
}
