//! The key of all entries: claiming, opening, listing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use windows_registry::{Key, LOCAL_MACHINE};

use super::mutex::Mutex;
use super::{Dir, NOT_FOUND, io_error};
use crate::{Error, Result};

/// Where all roots are, in the machine's hive.
const BASE: &str = r"SOFTWARE\Microsoft\runhcs";
/// The longest name of a root, in characters; a key's name has at most 255.
const LONGEST_NAME: usize = 200;

/// The key of all entries. It need not exist yet.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    /// Its name beneath [`BASE`].
    name: String,
    /// For messages.
    path: PathBuf,
}

impl Root {
    pub(crate) fn open(name: &Path) -> Result<Self> {
        let untrusted =
            |reason: &str| Error::Untrusted { path: name.to_owned(), reason: reason.to_owned() };
        let text = name.to_str().ok_or_else(|| untrusted("its name is not Unicode"))?;
        if text.is_empty() || text.len() > LONGEST_NAME {
            return Err(untrusted("a root's name has 1 to 200 characters"));
        }
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            return Err(untrusted("a root's name holds letters, digits and - _ . only"));
        }
        let path = PathBuf::from(format!(r"HKEY_LOCAL_MACHINE\{BASE}\{text}"));
        Ok(Self { name: text.to_owned(), path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the entry `name` with one value in it, locked; `None` if it exists.
    pub(crate) fn claim(&self, name: &str, value: &str, json: &[u8]) -> Result<Option<Dir>> {
        let path = self.path.join(name);
        let mutex = Mutex::of(&self.name, name, &path)?;
        let guard = mutex.guard()?;
        let root = self.made()?;
        let failed = |e: windows_result::Error| Error::io("make the entry", &path, io_error(e));
        if let Some(dir) = self.open_entry(name, &mutex)? {
            if dir.has(value)? {
                return Ok(None);
            }
            // What a crashed claim or removal left.
            drop(dir);
            root.remove_tree(name).map_err(failed)?;
        }
        let key = root.options().read().write().create().volatile().open(name).map_err(failed)?;
        let dir = Dir::new(path.clone(), self.key_path(name), key, mutex.clone());
        match dir.write(value, json) {
            Ok(()) => {
                guard.keep();
                Ok(Some(dir))
            }
            Err(error) => {
                let _ = root.remove_tree(name);
                Err(error)
            }
        }
    }

    /// The entry `name`; `None` if there is none.
    pub(crate) fn entry(&self, name: &str) -> Result<Option<Dir>> {
        let mutex = Mutex::of(&self.name, name, &self.path.join(name))?;
        self.open_entry(name, &mutex)
    }

    /// The names of all keys, entry or not.
    pub(crate) fn names(&self) -> Result<Vec<OsString>> {
        let failed = |e: windows_result::Error| Error::io("list", &self.path, io_error(e));
        let root = match LOCAL_MACHINE.open(self.base()) {
            Ok(root) => root,
            Err(error) if error.code().0 == NOT_FOUND => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        Ok(root.keys().map_err(failed)?.map(OsString::from).collect())
    }

    /// The key `name` that isn't an entry and never goes, made if need be.
    pub(crate) fn shared(&self, name: &str) -> Result<Dir> {
        let path = self.path.join(name);
        let mutex = Mutex::of(&self.name, name, &path)?;
        let root = self.made()?;
        let key = root.options().read().write().create().volatile().open(name);
        let key = key.map_err(|e| Error::io("make", &path, io_error(e)))?;
        Ok(Dir::new(path, self.key_path(name), key, mutex))
    }

    fn open_entry(&self, name: &str, mutex: &Mutex) -> Result<Option<Dir>> {
        let (path, key_path) = (self.path.join(name), self.key_path(name));
        match LOCAL_MACHINE.options().read().write().open(&key_path) {
            Ok(key) => Ok(Some(Dir::new(path, key_path, key, mutex.clone()))),
            Err(error) if error.code().0 == NOT_FOUND => Ok(None),
            Err(error) => Err(Error::io("open", &path, io_error(error))),
        }
    }

    fn made(&self) -> Result<Key> {
        let key = LOCAL_MACHINE.options().read().write().create().volatile().open(self.base());
        key.map_err(|e| Error::io("make", &self.path, io_error(e)))
    }

    fn base(&self) -> String {
        format!(r"{BASE}\{}", self.name)
    }

    fn key_path(&self, name: &str) -> String {
        format!(r"{BASE}\{}\{name}", self.name)
    }
}
