//! Named mutexes, for which processes wait for each other.

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use windows_sys::Win32::Foundation::{WAIT_ABANDONED, WAIT_OBJECT_0, WAIT_TIMEOUT};
use windows_sys::Win32::System::Threading::{CreateMutexW, ReleaseMutex, WaitForSingleObject};

use super::AdministratorsOnly;
use crate::name::digest;
use crate::{Error, Result};

/// How long a process may keep others waiting, in milliseconds: longer than any verb takes.
const PATIENCE: u32 = 600_000;

/// The mutex of one entry. It belongs to the thread that locked it; the system frees it if that
/// ends. Clones are the same mutex.
#[derive(Clone, Debug)]
pub(super) struct Mutex {
    handle: Rc<OwnedHandle>,
    /// For messages.
    path: PathBuf,
}

impl Mutex {
    /// The mutex of an entry. Names are the same for every session of the machine.
    pub(super) fn of(root: &str, name: &str, path: &Path) -> Result<Self> {
        // A mutex's name can't be as long as a key's, and differs by case.
        let name = digest(&format!(r"{root}\{name}").to_lowercase());
        let name: Vec<u16> = format!(r"Global\runhcs-{name}").encode_utf16().chain([0]).collect();
        let failed = |error: io::Error| Error::io("make the lock of", path, error);
        let rights = AdministratorsOnly::new().map_err(failed)?;
        // SAFETY: the name is a text with a 0 at its end; it, the attributes and the rights in them
        // outlive the call.
        let handle = unsafe { CreateMutexW(&rights.attributes(), 0, name.as_ptr()) };
        if handle.is_null() {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: the call has just made the handle, and nobody else has it.
        let handle = unsafe { OwnedHandle::from_raw_handle(handle) };
        Ok(Self { handle: Rc::new(handle), path: path.to_owned() })
    }

    /// Waits for the mutex, and gives it up when the guard is dropped.
    pub(super) fn guard(&self) -> Result<Guard<'_>> {
        self.lock()?;
        Ok(Guard(Some(self)))
    }

    /// Waits for the mutex.
    pub(super) fn lock(&self) -> Result<()> {
        // SAFETY: the handle is open as long as this exists.
        let outcome = unsafe { WaitForSingleObject(self.handle.as_raw_handle(), PATIENCE) };
        let failed = |error: io::Error| Err(Error::io("lock", &self.path, error));
        match outcome {
            // Abandoned: its owner died; what it left is as good as after any crash.
            WAIT_OBJECT_0 | WAIT_ABANDONED => Ok(()),
            WAIT_TIMEOUT => failed(io::ErrorKind::TimedOut.into()),
            _ => failed(io::Error::last_os_error()),
        }
    }

    /// Gives it up. Without effect unless this thread has it.
    pub(super) fn unlock(&self) {
        // SAFETY: the handle is open as long as this exists.
        let _ = unsafe { ReleaseMutex(self.handle.as_raw_handle()) };
    }
}

/// Has the mutex until it is dropped.
pub(super) struct Guard<'a>(Option<&'a Mutex>);

impl Guard<'_> {
    /// Leaves it to somebody else to give the mutex up.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.inspect(|mutex| mutex.unlock());
    }
}
