//! Events: how the service tells that a system or a process has ended. That has no function to wait
//! with before Windows Server 2022; the callbacks are there from Windows Server 2019 on.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use windows_sys::Win32::System::HostComputeSystem::{
    HCS_EVENT, HCS_EVENT_CALLBACK, HcsEventProcessExited, HcsEventServiceDisconnect,
    HcsEventSystemExited,
};
use windows_sys::core::HRESULT;

use super::text;

/// `HCS_E_SERVICE_DISCONNECT`
pub(super) const DISCONNECTED: i32 = 0x8037_011e_u32 as i32;

/// What the service has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It has ended; the document says how.
    Ended(String),
    /// The service is gone, and whether it has ended is not known.
    Disconnected,
}

/// A handle that is listened to. Each has at most one for its whole life.
#[derive(Debug)]
pub(super) struct Watch {
    key: usize,
    end: Arc<End>,
}

#[derive(Debug, Default)]
struct End {
    told: Mutex<Option<Told>>,
    changed: Condvar,
}

/// Those that are listened to, by the keys that the callback gets. So a callback that comes late
/// finds nothing instead of what was freed.
#[derive(Default)]
struct Watches {
    last: usize,
    ends: BTreeMap<usize, Arc<End>>,
}

static WATCHES: Mutex<Watches> = Mutex::new(Watches { last: 0, ends: BTreeMap::new() });

fn watches() -> MutexGuard<'static, Watches> {
    // Whoever panicked has left the map whole.
    WATCHES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Listens, by a function that sets the callback.
    pub(super) fn new(
        set: impl FnOnce(*const c_void, HCS_EVENT_CALLBACK) -> HRESULT,
    ) -> Result<Self, HRESULT> {
        let watch = {
            let mut watches = watches();
            watches.last += 1;
            let (key, end) = (watches.last, Arc::<End>::default());
            watches.ends.insert(key, Arc::clone(&end));
            Self { key, end }
        };
        match set(watch.key as *const c_void, Some(on_event)) {
            code if code < 0 => Err(code),
            _ => Ok(watch),
        }
    }

    /// Notes what was found out otherwise. The first word counts.
    pub(super) fn tell(&self, told: Told) {
        self.end.tell(told);
    }

    /// Waits until something is told; `None` if nothing is in time.
    pub(super) fn wait(&self, limit: Duration) -> Option<Told> {
        let told = self.end.told.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = |told: &mut Option<Told>| told.is_none();
        let waited = self.end.changed.wait_timeout_while(told, limit, nothing);
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        watches().ends.remove(&self.key);
    }
}

impl End {
    fn tell(&self, told: Told) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(told);
        self.changed.notify_all();
    }
}

/// Takes an event. `context` is a key, not an address.
unsafe extern "system" fn on_event(event: *const HCS_EVENT, context: *const c_void) {
    // SAFETY: the service gives an event that is there until this returns.
    let (kind, document) = unsafe { ((*event).Type, text::read((*event).EventData)) };
    #[allow(non_upper_case_globals, reason = "the names are the service's")]
    let told = match kind {
        HcsEventSystemExited | HcsEventProcessExited => Told::Ended(document),
        HcsEventServiceDisconnect => Told::Disconnected,
        _ => return,
    };
    let end = watches().ends.get(&(context as usize)).cloned();
    if let Some(end) = end {
        end.tell(told);
    }
}
