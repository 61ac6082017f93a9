//! A file mapped into memory, shared with everybody who maps it.

use std::fs::File;
use std::sync::atomic::{AtomicU8, AtomicU64};

use anyhow::{Context, Result};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// A mapping of a file's beginning.
pub struct Map {
    address: *mut std::ffi::c_void,
    length: usize,
}

impl Map {
    /// Maps the first `length` bytes, which the file must have, for reading and writing.
    pub fn new(file: &File, length: usize) -> Result<Self> {
        Self::with(file, length, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// The same for reading alone.
    pub fn to_read(file: &File, length: usize) -> Result<Self> {
        Self::with(file, length, ProtFlags::READ)
    }

    fn with(file: &File, length: usize, protection: ProtFlags) -> Result<Self> {
        // SAFETY: the kernel chooses the address, so nothing else is there.
        let address =
            unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, file, 0) };
        Ok(Self { address: address.context("map the file")?, length })
    }

    /// The mapped bytes. Those beyond the file's end can't be looked at, and if it was mapped for
    /// reading, none can be stored to.
    pub fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: the mapping is there for as long as `self`; others may change it at any time,
        // which atomics allow.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.length) }
    }

    /// The first eight bytes as a number.
    pub fn counter(&self) -> &AtomicU64 {
        assert!(self.length >= size_of::<u64>());
        // SAFETY: as above; a mapping begins at a page's beginning, so the number is aligned.
        unsafe { &*self.address.cast() }
    }

    /// Writes what was changed to the file.
    pub fn sync(&self) -> Result<()> {
        // SAFETY: the range is the mapping's.
        unsafe { msync(self.address, self.length, MsyncFlags::SYNC) }.context("write the map back")
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more, as every reference borrows `self`.
        let _ = unsafe { munmap(self.address, self.length) };
    }
}
