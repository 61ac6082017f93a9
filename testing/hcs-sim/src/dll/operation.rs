//! Operations: calls that go on while the caller does something else.

use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use windows_sys::Win32::System::HostComputeSystem::HCS_OPERATION_COMPLETION;

use super::{Library, library, wait_while};
use crate::hresult::{self, Hresult};
use crate::wire::{Call, ProcessInfo, Reply, What};

/// An operation.
#[derive(Debug)]
pub struct Operation {
    handle: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    kind: i32,
    context: usize,
    callback: HCS_OPERATION_COMPLETION,
    system: u64,
    process: u64,
}

#[derive(Debug)]
enum Phase {
    Unused,
    Going,
    Done { result: Hresult, document: Option<String>, process: Option<ProcessInfo> },
}

impl Operation {
    /// An operation that has not been used.
    pub fn new(handle: u64, context: *const c_void, callback: HCS_OPERATION_COMPLETION) -> Self {
        let state = State {
            phase: Phase::Unused,
            kind: -1,
            context: context as usize,
            callback,
            system: 0,
            process: 0,
        };
        Self { handle, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a call of the kind `HCS_OPERATION_TYPE`.
    pub fn start(
        self: Arc<Self>,
        library: &Library,
        kind: i32,
        (system, process): (u64, u64),
        call: Call,
    ) -> Result<(), Hresult> {
        {
            let mut state = self.state();
            if matches!(state.phase, Phase::Going) {
                return Err(hresult::OPERATION_ALREADY_STARTED);
            }
            state.phase = Phase::Going;
            (state.kind, state.system, state.process) = (kind, system, process);
        }
        library.client.send(What::Call(call), move |reply| self.done(reply));
        Ok(())
    }

    fn done(self: Arc<Self>, reply: Reply) {
        let (callback, context) = {
            let mut state = self.state();
            let Reply { result, document, process, .. } = reply;
            state.phase = Phase::Done { result, document, process };
            (state.callback, state.context)
        };
        self.changed.notify_all();
        let Some(callback) = callback else { return };
        // In a thread of its own, for it may make calls and wait for them, and this is the thread
        // that reads the answers.
        std::thread::spawn(move || {
            // An operation that has been closed isn't told any more.
            if library().is_ok_and(|library| library.operations().contains_key(&self.handle)) {
                // SAFETY: the caller gave the function and what it gets.
                unsafe { callback(self.handle as *mut c_void, context as *const c_void) };
            }
        });
    }

    /// The result, once it is there; the process too, if the call was about one.
    pub fn wait(
        &self,
        milliseconds: u32,
    ) -> (Result<Option<ProcessInfo>, Hresult>, Option<String>) {
        let state = self.state();
        let going = |state: &mut State| matches!(state.phase, Phase::Going);
        let state = wait_while(&self.changed, state, milliseconds, going);
        match &state.phase {
            Phase::Unused => (Err(hresult::OPERATION_NOT_STARTED), None),
            Phase::Going if milliseconds == 0 => (Err(hresult::OPERATION_PENDING), None),
            Phase::Going => (Err(hresult::OPERATION_TIMEOUT), None),
            Phase::Done { result, document, .. } if result.is_failure() => {
                (Err(*result), document.clone())
            }
            Phase::Done { document, process, .. } => (Ok(*process), document.clone()),
        }
    }

    /// What the caller attached to it.
    pub fn context(&self) -> *mut c_void {
        self.state().context as *mut c_void
    }

    /// Attaches something to it.
    pub fn set_context(&self, context: *const c_void) {
        self.state().context = context as usize;
    }

    /// Sets the callback.
    pub fn set_callback(
        &self,
        context: *const c_void,
        callback: HCS_OPERATION_COMPLETION,
    ) -> Result<(), Hresult> {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Unused) {
            return Err(hresult::OPERATION_ALREADY_STARTED);
        }
        (state.context, state.callback) = (context as usize, callback);
        Ok(())
    }

    /// The kind of call, an `HCS_OPERATION_TYPE`; -1 if there was none.
    pub fn kind(&self) -> i32 {
        self.state().kind
    }

    /// The system and the process that the call is about; 0 if there is none.
    pub fn about(&self) -> (u64, u64) {
        let state = self.state();
        (state.system, state.process)
    }
}
