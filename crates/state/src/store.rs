//! The store, its entries and their locks, whatever the operating system keeps them in.

use std::io;
use std::path::Path;

use runhcs_compute::ContainerId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::name::{entry_name, is_internal};
use crate::namespaces::Namespaces;
use crate::record::BadRecord;
use crate::sys::{self, Read};
use crate::{Error, Record, Result};

/// The name of the value that holds an entry's [`Record`].
const RECORD: &str = "record";

/// One line of [`Store::list`]: the entry with its record, or why it can't be read.
pub type Listed = Result<(Entry, Record)>;

/// All containers under one `--root`.
#[derive(Clone, Debug)]
pub struct Store {
    root: sys::Root,
}

impl Store {
    /// Opens the store at `root`: on Linux a directory, made (mode 0700) by the first
    /// [`Store::claim`]; on Windows the name of a registry key, made likewise.
    ///
    /// # Errors
    /// [`Error::Untrusted`] if others could tamper with the directory, or if it is no name.
    pub fn open(root: &Path) -> Result<Self> {
        Ok(Self { root: sys::Root::open(root)? })
    }

    /// Takes an id that is free, with its record already in place, and locks the new entry. Of
    /// several processes that claim one id at the same time, exactly one succeeds.
    ///
    /// Clears, by the way, what crashed claims and removals have left behind.
    ///
    /// # Errors
    /// [`Error::Exists`] if the id is taken. Whatever the error, nothing is left.
    pub fn claim(&self, record: &Record) -> Result<Locked> {
        let id = &record.id;
        let name = entry_name(id);
        let json = encode(record, &self.root.path().join(&name))?;
        let dir = self.root.claim(&name, RECORD, &json)?;
        let dir = dir.ok_or_else(|| Error::Exists(id.clone()))?;
        Ok(Locked { entry: Entry { id: id.clone(), dir } })
    }

    /// An existing entry.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub fn entry(&self, id: &ContainerId) -> Result<Entry> {
        let dir = self.root.entry(&entry_name(id))?;
        let dir = dir.ok_or_else(|| Error::NotFound(id.clone()))?;
        Ok(Entry { id: id.clone(), dir })
    }

    /// Every entry, by id. An entry that can't be read is in the list with its error.
    pub fn list(&self) -> Result<Vec<(String, Listed)>> {
        let mut entries = Vec::new();
        for name in self.root.names()? {
            // A name that isn't UTF-8 can't be an entry; it is shown as well as it can be.
            let shown = name.to_string_lossy().into_owned();
            if is_internal(&shown) {
                continue;
            }
            match self.listed(&shown) {
                // Removed since the directory was read.
                Err(Error::NotFound(_)) | Ok(None) => {}
                Ok(Some((entry, record))) => {
                    entries.push((record.id.as_str().to_owned(), Ok((entry, record))));
                }
                Err(error) => entries.push((shown, Err(error))),
            }
        }
        entries.sort_by(|(one, _), (two, _)| one.cmp(two));
        Ok(entries)
    }

    /// The persisted configuration of network namespaces.
    pub fn namespaces(&self) -> Namespaces {
        Namespaces::new(self.root.clone())
    }

    /// The entry of this name, with its record; `None` if there is none (any more).
    fn listed(&self, name: &str) -> Result<Option<(Entry, Record)>> {
        let foreign = |reason: String| Error::Foreign { path: self.root.path().join(name), reason };
        let Some(dir) = self.root.entry(name)? else { return Ok(None) };
        // The name of a long id's entry doesn't hold the id, only its record does.
        let id = match name.parse::<ContainerId>() {
            Ok(id) if entry_name(&id) == name => id,
            _ => match dir.read(RECORD)? {
                Read::Gone => return Ok(None),
                Read::Absent => return Err(foreign("it has no record".into())),
                Read::Unusable(reason) => return Err(foreign(reason)),
                Read::Value(json) => match Record::from_json(&json) {
                    Ok(record) if entry_name(&record.id) == name => record.id,
                    Ok(record) => {
                        return Err(foreign(format!("it holds container {}'s record", record.id)));
                    }
                    Err(error) => return Err(foreign(format!("its record: {error}"))),
                },
            },
        };
        let entry = Entry { id, dir };
        let record = entry.record()?;
        Ok(Some((entry, record)))
    }
}

/// One container's entry.
#[derive(Debug)]
pub struct Entry {
    id: ContainerId,
    pub(crate) dir: sys::Dir,
}

impl Entry {
    /// Its id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Its record.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the entry was removed, [`Error::Corrupt`] if its record can't be
    /// used.
    pub fn record(&self) -> Result<Record> {
        match self.dir.read(RECORD)? {
            Read::Value(json) => match Record::from_json(&json) {
                Ok(record) if record.id == self.id => Ok(record),
                Ok(record) => Err(self.corrupt(RECORD, BadRecord::Misplaced(record.id))),
                Err(error) => Err(self.corrupt(RECORD, error)),
            },
            Read::Absent => Err(self.corrupt(RECORD, "the file is missing")),
            Read::Unusable(reason) => Err(self.corrupt(RECORD, reason)),
            Read::Gone => Err(Error::NotFound(self.id.clone())),
        }
    }

    /// A named value; `None` if it was never written.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the entry was removed, [`Error::Corrupt`] if the value isn't a `T`.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        match self.dir.read(name)? {
            Read::Value(json) => match serde_json::from_slice(&json) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(self.corrupt(name, error)),
            },
            Read::Absent => Ok(None),
            Read::Unusable(reason) => Err(self.corrupt(name, reason)),
            Read::Gone => Err(Error::NotFound(self.id.clone())),
        }
    }

    /// Waits for the entry's lock.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the entry is removed meanwhile, even if its id was claimed again:
    /// that is another container.
    pub fn lock(self) -> Result<Locked> {
        if self.dir.lock()? { Ok(Locked { entry: self }) } else { Err(Error::NotFound(self.id)) }
    }

    fn corrupt(
        &self,
        name: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        let path = self.dir.value_path(name);
        Error::Corrupt { id: self.id.clone(), path, source: source.into() }
    }
}

/// An entry that no other process can change until this is dropped. Reads as an [`Entry`].
#[derive(Debug)]
pub struct Locked {
    entry: Entry,
}

impl std::ops::Deref for Locked {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Not left to the closing of the descriptor: a child that was cloned while the lock was
        // held has a copy of it.
        self.entry.dir.unlock();
    }
}

impl Locked {
    /// Replaces a named value, whole or not at all.
    ///
    /// # Errors
    /// [`Error::NotFound`] if somebody deleted the entry in spite of the lock.
    pub fn put<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let json = encode(value, &self.dir.value_path(name))?;
        match self.dir.write(name, &json) {
            Err(_) if !self.dir.is_current()? => Err(Error::NotFound(self.id.clone())),
            outcome => outcome,
        }
    }

    /// Removes a named value. Succeeds if it was never written.
    pub fn erase(&self, name: &str) -> Result<()> {
        self.dir.erase(name)
    }

    /// Removes the entry and all in its directory. Succeeds if it is gone already.
    ///
    /// # Errors
    /// If something in the directory can't be removed (a mount point, say), the entry stays, and
    /// its record with it.
    pub fn remove(&self) -> Result<()> {
        self.dir.remove(RECORD)
    }
}

/// A value as JSON, for the file at `path`.
pub(crate) fn encode<T: Serialize>(value: &T, path: &Path) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::io("encode", path, io::Error::other(e)))
}
