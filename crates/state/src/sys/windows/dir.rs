//! One entry: a key with values, and its lock.

use std::path::PathBuf;

use windows_registry::{Key, LOCAL_MACHINE, Type};

use super::mutex::Mutex;
use super::{KEY_DELETED, NOT_FOUND, io_error};
use crate::sys::Read;
use crate::{Error, Result};

/// An entry's key, held open. The key may have been deleted meanwhile.
#[derive(Debug)]
pub(crate) struct Dir {
    /// For messages.
    path: PathBuf,
    /// In the machine's hive.
    key_path: String,
    key: Key,
    mutex: Mutex,
}

impl Dir {
    pub(super) fn new(path: PathBuf, key_path: String, key: Key, mutex: Mutex) -> Self {
        Self { path, key_path, key, mutex }
    }

    /// Where a value is kept, for messages.
    pub(crate) fn value_path(&self, value: &str) -> PathBuf {
        self.path.join(value)
    }

    pub(crate) fn read(&self, value: &str) -> Result<Read> {
        match self.key.get_value(value) {
            Ok(found) if found.ty() != Type::String => {
                Ok(Read::Unusable("it is not a text".to_owned()))
            }
            Ok(found) => match String::try_from(found) {
                Ok(text) => Ok(Read::Value(text.into_bytes())),
                Err(error) => Ok(Read::Unusable(error.to_string())),
            },
            Err(error) if error.code().0 == KEY_DELETED => Ok(Read::Gone),
            // Either it was never written, or a removal has come this far.
            Err(error) if error.code().0 == NOT_FOUND => {
                Ok(if self.is_current()? { Read::Absent } else { Read::Gone })
            }
            Err(error) => Err(Error::io("read", &self.value_path(value), io_error(error))),
        }
    }

    /// Whether a value is there.
    pub(super) fn has(&self, value: &str) -> Result<bool> {
        Ok(!matches!(self.read(value)?, Read::Absent | Read::Gone))
    }

    /// Replaces a value; the registry does so whole or not at all. The caller holds the lock.
    pub(crate) fn write(&self, value: &str, json: &[u8]) -> Result<()> {
        let failed = |e: std::io::Error| Error::io("write", &self.value_path(value), e);
        let text = std::str::from_utf8(json).map_err(|e| failed(std::io::Error::other(e)))?;
        self.key.set_string(value, text).map_err(|e| failed(io_error(e)))
    }

    /// Removes a value if it is there.
    pub(crate) fn erase(&self, value: &str) -> Result<()> {
        match self.key.remove_value(value) {
            Err(error) if ![NOT_FOUND, KEY_DELETED].contains(&error.code().0) => {
                Err(Error::io("remove", &self.value_path(value), io_error(error)))
            }
            _ => Ok(()),
        }
    }

    /// Whether the key has not been deleted. A new key of the same name is another one: this handle
    /// stays that of the deleted key.
    pub(crate) fn is_current(&self) -> Result<bool> {
        match self.key.get_type("") {
            Err(error) if error.code().0 == KEY_DELETED => Ok(false),
            Err(error) if error.code().0 != NOT_FOUND => {
                Err(Error::io("inspect", &self.path, io_error(error)))
            }
            _ => Ok(true),
        }
    }

    /// Waits for the lock. False, and not locked, if the entry was removed meanwhile.
    pub(crate) fn lock(&self) -> Result<bool> {
        self.mutex.lock()?;
        let current = self.is_current();
        if !matches!(current, Ok(true)) {
            self.mutex.unlock();
        }
        current
    }

    /// Gives the lock up.
    pub(crate) fn unlock(&self) {
        self.mutex.unlock();
    }

    /// Deletes the key and all in it, the value `mark`, which makes it an entry, before everything
    /// else. The caller holds the lock.
    pub(crate) fn remove(&self, mark: &str) -> Result<()> {
        if !self.is_current()? {
            return Ok(());
        }
        self.erase(mark)?;
        match LOCAL_MACHINE.remove_tree(&self.key_path) {
            Err(error) if error.code().0 != NOT_FOUND => {
                Err(Error::io("remove", &self.path, io_error(error)))
            }
            _ => Ok(()),
        }
    }
}
