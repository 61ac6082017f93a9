//! What a container holds in a VM, and the layers that several of them share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use runhcs_hcs::documents::{Change, ScsiSlot};
use runhcs_hcs::schema::ModifySettingRequest;
use runhcs_hcs::service::System;
use runhcs_hcs::{Failure, Kind};

use super::slots::Lease;

/// Places that go with a device.
#[derive(Debug)]
pub enum Place {
    /// Of a disk.
    Scsi(#[expect(dead_code, reason = "it only has to be taken")] Lease<ScsiSlot>),
    /// Of persistent memory.
    Pmem(#[expect(dead_code, reason = "it only has to be taken")] Lease<u32>),
    /// None is needed.
    None,
}

/// What a container holds, oldest first.
#[derive(Debug, Default)]
pub struct Holdings(Vec<Holding>);

#[derive(Debug)]
enum Holding {
    Own { remove: ModifySettingRequest, place: Place, on_disk: bool },
    Shared(Arc<SharedLayer>),
}

impl Holdings {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Has a resource of the container's own added. `on_disk` says that it has to go before the
    /// container's disk can be taken out, or is that disk.
    pub fn add(&mut self, vm: &System, change: Change, place: Place, on_disk: bool) -> Result<()> {
        vm.modify(&change.add)?;
        self.0.push(Holding::Own { remove: change.remove, place, on_disk });
        Ok(())
    }

    /// Has a layer added, unless it is there, and returns its path in the guest.
    pub fn share(
        &mut self,
        vm: &System,
        layers: &SharedLayers,
        folder: &str,
        mount: impl FnOnce() -> Result<Mountable>,
    ) -> Result<String> {
        let layer = layers.of(folder);
        let path = layer.acquire(vm, mount)?;
        self.0.push(Holding::Shared(layer));
        Ok(path)
    }

    /// Frees everything, or only what is on the container's disks, newest first. What resists is
    /// passed over, and the first such failure returned.
    pub fn release(&mut self, vm: &System, all: bool) -> Result<()> {
        let mut outcome = Ok(());
        let mut kept = Vec::new();
        while let Some(holding) = self.0.pop() {
            let freed = match holding {
                Holding::Own { remove, place, on_disk } if all || on_disk => {
                    let freed = removed(vm.modify(&remove));
                    drop(place);
                    freed
                }
                Holding::Shared(layer) if all => layer.release(vm),
                other => {
                    kept.push(other);
                    Ok(())
                }
            };
            if let Err(failure) = freed {
                tracing::warn!("{failure}");
                outcome = outcome.and(Err(failure));
            }
        }
        kept.reverse();
        self.0 = kept;
        Ok(outcome?)
    }
}

/// A removal is done, too, if there is nothing left that it could be removed from.
fn removed(outcome: std::result::Result<(), Failure>) -> std::result::Result<(), Failure> {
    match outcome {
        Err(failure) if matches!(failure.kind, Kind::NotFound | Kind::AlreadyStopped) => Ok(()),
        outcome => outcome,
    }
}

/// How a layer gets into a VM.
pub struct Mountable {
    pub change: Change,
    pub place: Place,
    /// Its path in the guest.
    pub path: String,
}

/// The layers in a VM, by their folders on the host.
#[derive(Debug, Default)]
pub struct SharedLayers(Mutex<HashMap<String, Arc<SharedLayer>>>);

/// A layer. While one container waits for it to get into the VM, others that want it wait, too, and
/// nobody else does.
#[derive(Debug, Default)]
struct SharedLayer(Mutex<Option<Mounted>>);

#[derive(Debug)]
struct Mounted {
    remove: ModifySettingRequest,
    /// Given back after the removal.
    #[expect(dead_code, reason = "it only has to be taken")]
    place: Place,
    path: String,
    users: usize,
}

impl SharedLayers {
    fn of(&self, folder: &str) -> Arc<SharedLayer> {
        // Windows' names don't differ by case.
        let mut layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(layers.entry(folder.to_lowercase()).or_default())
    }
}

impl SharedLayer {
    fn state(&self) -> MutexGuard<'_, Option<Mounted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn acquire(&self, vm: &System, mount: impl FnOnce() -> Result<Mountable>) -> Result<String> {
        let mut state = self.state();
        if let Some(mounted) = &mut *state {
            mounted.users += 1;
            return Ok(mounted.path.clone());
        }
        let Mountable { change, place, path } = mount()?;
        vm.modify(&change.add)?;
        *state = Some(Mounted { remove: change.remove, place, path: path.clone(), users: 1 });
        Ok(path)
    }

    fn release(&self, vm: &System) -> std::result::Result<(), Failure> {
        let mut state = self.state();
        let Some(mounted) = &mut *state else { return Ok(()) };
        mounted.users -= 1;
        if mounted.users > 0 {
            return Ok(());
        }
        // Kept if it resists: its place is taken still, and it is there for the next container.
        removed(vm.modify(&mounted.remove))?;
        *state = None;
        Ok(())
    }
}
