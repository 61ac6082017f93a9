//! The store, its entries and their locks.

use std::path::Path;

use runhcs_compute::ContainerId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Record, Result};

/// All containers under one `--root`.
#[derive(Clone, Debug)]
pub struct Store;

impl Store {
    /// Opens the store at `root`. The directory is made (mode 0700) by the first [`Store::claim`].
    pub fn open(_root: &Path) -> Result<Self> {
        todo!()
    }

    /// Takes an id that is free, with its record already in place, and locks the new entry. Of
    /// several processes that claim one id at the same time, exactly one succeeds.
    pub fn claim(&self, _record: &Record) -> Result<Locked> {
        todo!()
    }

    /// An existing entry.
    pub fn entry(&self, _id: &ContainerId) -> Result<Entry> {
        todo!()
    }

    /// Every entry, by id. An entry that can't be read is in the list with its error.
    pub fn list(&self) -> Result<Vec<(String, Result<(Entry, Record)>)>> {
        todo!()
    }
}

/// One container's entry.
#[derive(Debug)]
pub struct Entry;

impl Entry {
    /// Its id.
    pub fn id(&self) -> &ContainerId {
        todo!()
    }

    /// Its directory, for sockets, FIFOs and logs. It goes with the entry.
    pub fn dir(&self) -> &Path {
        todo!()
    }

    /// Its record.
    pub fn record(&self) -> Result<Record> {
        todo!()
    }

    /// A named value; `None` if it was never written.
    pub fn get<T: DeserializeOwned>(&self, _name: &str) -> Result<Option<T>> {
        todo!()
    }

    /// Waits for the entry's lock. `NotFound` if the entry is removed meanwhile.
    pub fn lock(self) -> Result<Locked> {
        todo!()
    }
}

/// An entry that no other process can change until this is dropped. Reads as an [`Entry`].
#[derive(Debug)]
pub struct Locked;

impl std::ops::Deref for Locked {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        todo!()
    }
}

impl Locked {
    /// Replaces a named value, whole or not at all.
    pub fn put<T: Serialize>(&self, _name: &str, _value: &T) -> Result<()> {
        todo!()
    }

    /// Removes the entry and all in its directory. Succeeds if it is gone already.
    pub fn remove(self) -> Result<()> {
        todo!()
    }
}
