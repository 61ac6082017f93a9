//! The library that the programs under test load: the functions of `computecore.dll`,
//! `computestorage.dll`, `computenetwork.dll` and `virtdisk.dll`, each of which asks the service.
//!
//! Handles are numbers, not addresses: one that was closed is noticed instead of followed.

mod core;
mod disk;
mod network;
mod object;
mod operation;
mod storage;
mod text;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::client::Client;
use crate::hresult::{self, Hresult};
use crate::wire::{ADDRESS, Call, Event, EventKind, Reply};
use object::Object;
use operation::Operation;

/// Waits for a change as long as it takes, but at most so long; `u32::MAX` is no limit.
fn wait_while<'a, T>(
    changed: &Condvar,
    state: MutexGuard<'a, T>,
    milliseconds: u32,
    going: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    if milliseconds == u32::MAX {
        return changed.wait_while(state, going).unwrap_or_else(PoisonError::into_inner);
    }
    let limit = Duration::from_millis(milliseconds.into());
    let waited = changed.wait_timeout_while(state, limit, going);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

/// What this copy of the library has.
struct Library {
    client: Client,
    last: AtomicU64,
    operations: Mutex<HashMap<u64, Arc<Operation>>>,
    objects: Mutex<HashMap<u64, Arc<Object>>>,
}

/// The library, connected to the service when it is first used.
fn library() -> Result<&'static Library, Hresult> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        let (client, events) = Client::connect(&std::env::var(ADDRESS).ok()?).ok()?;
        std::thread::spawn(move || {
            for event in events {
                if let Ok(library) = library() {
                    library.event(event);
                }
            }
            if let Ok(library) = library() {
                library.disconnected();
            }
        });
        Some(Library {
            client,
            last: AtomicU64::new(0),
            operations: Mutex::default(),
            objects: Mutex::default(),
        })
    });
    library.as_ref().ok_or(hresult::SERVICE_NOT_AVAILABLE)
}

impl Library {
    fn operations(&self) -> MutexGuard<'_, HashMap<u64, Arc<Operation>>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<u64, Arc<Object>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a handle. They begin high enough not to be taken for a small error code.
    fn next(&self) -> u64 {
        0x1_0000 + 4 * self.last.fetch_add(1, Ordering::Relaxed)
    }

    fn operation(&self, handle: *mut c_void) -> Result<Arc<Operation>, Hresult> {
        self.operations().get(&(handle as u64)).cloned().ok_or(hresult::HANDLE)
    }

    fn object(&self, handle: *mut c_void) -> Result<Arc<Object>, Hresult> {
        self.objects().get(&(handle as u64)).cloned().ok_or(hresult::HANDLE)
    }

    /// Makes the object that a new handle stands for.
    fn new_object(&self, number: u64) -> *mut c_void {
        self.objects().insert(number, Arc::new(Object::new(number)));
        number as *mut c_void
    }

    fn event(&self, event: Event) {
        let object = self.objects().get(&event.handle).cloned();
        if let Some(object) = object {
            object.ended(event);
        }
    }

    /// Tells everybody that the service is gone.
    fn disconnected(&self) {
        let objects: Vec<_> = self.objects().values().cloned().collect();
        for object in objects {
            let (handle, kind) = (object.number, EventKind::ServiceDisconnect);
            object.ended(Event { handle, kind, document: String::new() });
        }
    }

    /// Makes a call and waits.
    fn call(&self, call: Call) -> Result<Reply, Reply> {
        let reply = self.client.call(call);
        if reply.result.is_failure() { Err(reply) } else { Ok(reply) }
    }
}

/// What a function returns.
fn code(result: Result<(), Hresult>) -> i32 {
    let Hresult(code) = result.err().unwrap_or(hresult::OK);
    i32::from_ne_bytes(code.to_ne_bytes())
}
