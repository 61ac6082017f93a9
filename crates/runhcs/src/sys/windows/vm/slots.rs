//! Places for devices of a VM: taken for as long as the device is there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use runhcs_hcs::documents::ScsiSlot;

/// How many disks a SCSI controller takes.
const DISKS: u8 = 64;

/// The places of one VM.
#[derive(Debug)]
pub struct Slots {
    free: Mutex<Free>,
    /// Numbers that are never used again.
    next: AtomicU64,
}

#[derive(Debug)]
struct Free {
    scsi: BTreeSet<ScsiSlot>,
    pmem: BTreeSet<u32>,
}

/// A place, given back when this is dropped.
#[derive(Debug)]
pub struct Lease<T: Copy> {
    slots: Arc<Slots>,
    /// The place.
    pub place: T,
    back: fn(&mut Free, T),
}

impl Slots {
    /// The places of a VM with so many SCSI controllers and persistent memory devices. Those that
    /// it boots from are taken for good.
    pub fn new(
        controllers: u8,
        pmem_count: u32,
        boots_from: impl FnOnce(&mut BTreeSet<ScsiSlot>, &mut BTreeSet<u32>),
    ) -> Arc<Self> {
        let slots = (0..controllers)
            .flat_map(|controller| (0..DISKS).map(move |lun| ScsiSlot { controller, lun }));
        let (mut scsi, mut pmem) = (slots.collect(), (0..pmem_count).collect());
        boots_from(&mut scsi, &mut pmem);
        Arc::new(Self { free: Mutex::new(Free { scsi, pmem }), next: AtomicU64::new(1) })
    }

    /// A place for a disk.
    pub fn scsi(self: &Arc<Self>) -> Result<Lease<ScsiSlot>> {
        let place = self.with(|free| free.scsi.pop_first());
        let place = place.context("the virtual machine has no place for another disk")?;
        let back = |free: &mut Free, place| {
            free.scsi.insert(place);
        };
        Ok(Lease { slots: Arc::clone(self), place, back })
    }

    /// A persistent memory device; `None` if all are taken.
    pub fn pmem(self: &Arc<Self>) -> Option<Lease<u32>> {
        let place = self.with(|free| free.pmem.pop_first())?;
        let back = |free: &mut Free, place| {
            free.pmem.insert(place);
        };
        Some(Lease { slots: Arc::clone(self), place, back })
    }

    /// A number that is never used again.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn with<R>(&self, work: impl FnOnce(&mut Free) -> R) -> R {
        // Whoever panicked has left the sets whole.
        work(&mut self.free.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T: Copy> Drop for Lease<T> {
    fn drop(&mut self) {
        let (back, place) = (self.back, self.place);
        self.slots.with(|free| back(free, place));
    }
}
