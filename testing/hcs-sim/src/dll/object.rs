//! What a handle of a system or of a process stands for: its end, and the callback for it.

use std::ffi::c_void;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use windows_sys::Win32::System::HostComputeSystem::{
    HCS_EVENT, HCS_EVENT_CALLBACK, HcsEventProcessExited, HcsEventServiceDisconnect,
    HcsEventSystemExited,
};

use super::wait_while;
use crate::hresult::{self, Hresult};
use crate::wire::{Event, EventKind};

/// A handle's object.
#[derive(Debug)]
pub struct Object {
    /// The handle's number.
    pub number: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    end: Option<Event>,
    callback: Option<Callback>,
    told: bool,
    closed: bool,
    /// The thread in which the callback runs now.
    calling: Option<ThreadId>,
}

/// A caller's function and what it gets.
#[derive(Clone, Copy, Debug)]
struct Callback {
    function: unsafe extern "system" fn(*const HCS_EVENT, *const c_void),
    context: usize,
}

impl Object {
    /// An object whose end is not known yet.
    pub fn new(number: u64) -> Self {
        Self { number, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records its end and tells the caller.
    pub fn ended(&self, event: Event) {
        self.state().end.get_or_insert(event);
        self.changed.notify_all();
        self.tell();
    }

    /// Sets the callback. What has ended already is told at once.
    pub fn set_callback(
        &self,
        callback: HCS_EVENT_CALLBACK,
        context: *const c_void,
    ) -> Result<(), Hresult> {
        let mut state = self.state();
        match callback {
            Some(_) if state.callback.is_some() => return Err(hresult::CALLBACK_ALREADY_SET),
            Some(function) => {
                state.callback = Some(Callback { function, context: context as usize });
            }
            None => state.callback = None,
        }
        drop(state);
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let (callback, end) = {
            let mut state = self.state();
            let (Some(callback), Some(end), false, false) =
                (state.callback, state.end.clone(), state.told, state.closed)
            else {
                return;
            };
            state.told = true;
            state.calling = Some(std::thread::current().id());
            (callback, end)
        };
        let document: Vec<u16> = end.document.encode_utf16().chain([0]).collect();
        let event = HCS_EVENT {
            Type: match end.kind {
                EventKind::SystemExited => HcsEventSystemExited,
                EventKind::ProcessExited => HcsEventProcessExited,
                EventKind::ServiceDisconnect => HcsEventServiceDisconnect,
            },
            EventData: document.as_ptr(),
            Operation: std::ptr::null_mut(),
        };
        // SAFETY: the caller gave the function and what it gets, and both are good until the
        // handle is closed, which waits for this call.
        unsafe { (callback.function)(&event, callback.context as *const c_void) };
        self.state().calling = None;
        self.changed.notify_all();
    }

    /// Closes it: the callback isn't called any more, and doesn't run when this returns, unless it
    /// is the callback that closes.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        while state.calling.is_some_and(|thread| thread != std::thread::current().id()) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for its end and returns the document about it.
    pub fn wait(&self, milliseconds: u32) -> Result<String, Hresult> {
        let state = self.state();
        let going = |state: &mut State| state.end.is_none();
        let state = wait_while(&self.changed, state, milliseconds, going);
        match state.end.as_ref().ok_or(hresult::OPERATION_TIMEOUT)? {
            Event { kind: EventKind::ServiceDisconnect, .. } => Err(hresult::SERVICE_DISCONNECT),
            end => Ok(end.document.clone()),
        }
    }
}
