//! Processes in compute systems.

use std::fs::File;
use std::os::windows::io::{FromRawHandle, OwnedHandle};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::System::HostComputeSystem::{
    HCS_OPERATION, HCS_PROCESS, HcsCloseProcess, HcsCreateProcess, HcsEventOptionNone,
    HcsGetProcessProperties, HcsModifyProcess, HcsOpenProcess, HcsSetProcessCallback,
    HcsSignalProcess, HcsTerminateProcess,
};
use windows_sys::core::{HRESULT, PCWSTR};

use super::deadline::{ANSWER, PROCESS, within};
use super::events::{DISCONNECTED, Told, Watch};
use super::operation::Operation;
use super::system::understand;
use super::text::Wide;
use super::{Result, System};
use crate::schema::{
    CloseHandle, ConsoleSize, ProcessModifyOperation, ProcessModifyRequest, ProcessParameters,
    ProcessStatus, SignalOptions, StdioHandle,
};
use crate::{Failure, Kind};

/// How long the event of an end may take if the service doesn't know the process any more.
const GRACE: Duration = Duration::from_secs(2);
/// All rights (`GENERIC_ALL`).
const ALL_RIGHTS: u32 = 0x1000_0000;

/// A process in a compute system, open.
#[derive(Debug)]
pub struct Process {
    handle: HCS_PROCESS,
    /// For messages.
    name: String,
    pid: u32,
    /// There once somebody has waited for the end.
    watch: Mutex<Option<Arc<Watch>>>,
}

// SAFETY: as for `System`.
unsafe impl Send for Process {}
// SAFETY: as for `System`.
unsafe impl Sync for Process {}

/// A new process's pipes, as far as they were asked for.
#[derive(Debug, Default)]
pub struct Stdio {
    /// To its standard input.
    pub stdin: Option<File>,
    /// From its standard output.
    pub stdout: Option<File>,
    /// From its standard error.
    pub stderr: Option<File>,
}

impl System {
    /// Starts a process in it.
    pub fn create_process(&self, parameters: &ProcessParameters) -> Result<(Process, Stdio)> {
        let attempt = format!("start a process in compute system {}", self.id());
        let operation = Operation::new(&attempt)?;
        let document = Wide::json(parameters);
        let mut handle: HCS_PROCESS = std::ptr::null_mut();
        // SAFETY: the system is open; the text and the handle's place outlive the call; no security
        // descriptor is given.
        let begun = unsafe {
            HcsCreateProcess(
                self.handle.0,
                document.as_ptr(),
                operation.handle(),
                std::ptr::null(),
                &mut handle,
            )
        };
        // From here on the handle, if there is one, closes itself.
        let process = (!handle.is_null()).then(|| Process::new(handle, self.id(), 0));
        let information = match (operation.wait_for_process(begun, PROCESS), &process) {
            (Ok(information), _) => information,
            (Err(failure), process) => {
                // It may begin to run yet, and nobody would know.
                if let (Kind::TimedOut | Kind::Pending, Some(process)) = (failure.kind, process) {
                    let _ = process.terminate();
                }
                return Err(failure);
            }
        };
        // SAFETY: the service hands over handles of pipes that are this caller's alone.
        let pipe = |handle| unsafe { owned(handle) };
        let stdio = Stdio {
            stdin: pipe(information.StdInput),
            stdout: pipe(information.StdOutput),
            stderr: pipe(information.StdError),
        };
        match process {
            Some(mut process) => {
                process.pid = information.ProcessId;
                process.name = name(self.id(), process.pid);
                Ok((process, stdio))
            }
            None => Err(Failure::new(attempt, begun)),
        }
    }

    /// Opens a process of it, by the guest's id.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none.
    pub fn open_process(&self, pid: u32) -> Result<Process> {
        let attempt = format!("open {}", name(self.id(), pid));
        let (system, id) = (Arc::clone(&self.handle), self.id().to_owned());
        within(attempt.clone(), ANSWER, move || {
            let mut handle: HCS_PROCESS = std::ptr::null_mut();
            // SAFETY: the system is open, and the handle's place outlives the call.
            let code = unsafe { HcsOpenProcess(system.0, pid, ALL_RIGHTS, &mut handle) };
            if code < 0 || handle.is_null() {
                return Err(Failure::new(attempt, code));
            }
            Ok(Process::new(handle, &id, pid))
        })
    }
}

fn name(system: &str, pid: u32) -> String {
    format!("process {pid} of compute system {system}")
}

/// # Safety
/// The handle is open and belongs to the caller alone, or is none.
unsafe fn owned(handle: HANDLE) -> Option<File> {
    if handle.is_null() || handle == INVALID_HANDLE_VALUE {
        return None;
    }
    // SAFETY: the caller says so.
    Some(File::from(unsafe { OwnedHandle::from_raw_handle(handle) }))
}

impl Process {
    fn new(handle: HCS_PROCESS, system: &str, pid: u32) -> Self {
        Self { handle, name: name(system, pid), pid, watch: Mutex::default() }
    }

    /// Its id in the guest.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end and returns its exit code; `None` if it hasn't come in time.
    pub fn wait(&self, limit: Duration) -> Result<Option<u32>> {
        let attempt = format!("wait for {}", self.name);
        let document = match self.watch(&attempt)?.wait(limit) {
            None => return Ok(None),
            Some(Told::Ended(document)) => document,
            Some(Told::Disconnected) => return Err(Failure::new(attempt, DISCONNECTED)),
        };
        let status: ProcessStatus = understand(attempt.clone(), &document)?;
        if status.last_wait_result < 0 {
            return Err(Failure::new(attempt, status.last_wait_result));
        }
        Ok(Some(status.exit_code))
    }

    /// Listens to it from now on.
    fn watch(&self, attempt: &str) -> Result<Arc<Watch>> {
        let mut slot = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = &*slot {
            return Ok(Arc::clone(watch));
        }
        let watch = Watch::new(|context, callback| {
            // SAFETY: the process is open. The context is a number to the callback.
            unsafe { HcsSetProcessCallback(self.handle, HcsEventOptionNone, context, callback) }
        });
        let watch = Arc::new(watch.map_err(|code| Failure::new(attempt, code))?);
        *slot = Some(Arc::clone(&watch));
        drop(slot);
        // It may have ended before anybody listened.
        match self.status() {
            Ok((status, document)) if status.exited => watch.tell(Told::Ended(document)),
            Err(failure)
                if matches!(failure.kind, Kind::AlreadyStopped | Kind::NotFound)
                    && watch.wait(GRACE).is_none() =>
            {
                return Err(failure);
            }
            // If it can't be asked, it tells by itself all the same.
            _ => {}
        }
        Ok(watch)
    }

    /// What the service says of it, understood and as it is.
    fn status(&self) -> Result<(ProcessStatus, String)> {
        let attempt = format!("ask {} for its status", self.name);
        let operation = Operation::new(&attempt)?;
        // SAFETY: the process and the operation are open; no query is given.
        let begun =
            unsafe { HcsGetProcessProperties(self.handle, operation.handle(), std::ptr::null()) };
        let document = operation.wait(begun, ANSWER)?;
        Ok((understand(attempt, &document)?, document))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: &SignalOptions) -> Result<()> {
        let options = Wide::json(signal);
        self.call("signal", HcsSignalProcess, options.as_ptr())
    }

    /// Ends it. Succeeds if it has ended already.
    pub fn terminate(&self) -> Result<()> {
        match self.call("terminate", HcsTerminateProcess, std::ptr::null()) {
            Err(failure) if failure.kind == Kind::AlreadyStopped => Ok(()),
            outcome => outcome,
        }
    }

    /// Sets the size of its console.
    pub fn resize(&self, size: ConsoleSize) -> Result<()> {
        self.modify(&ProcessModifyRequest {
            operation: Some(ProcessModifyOperation::ConsoleSize),
            console_size: Some(size),
            ..ProcessModifyRequest::default()
        })
    }

    /// Tells it that its standard input has ended.
    pub fn close_stdin(&self) -> Result<()> {
        self.modify(&ProcessModifyRequest {
            operation: Some(ProcessModifyOperation::CloseHandle),
            close_handle: Some(CloseHandle { handle: Some(StdioHandle::StdIn) }),
            ..ProcessModifyRequest::default()
        })
    }

    fn modify(&self, request: &ProcessModifyRequest) -> Result<()> {
        let document = Wide::json(request);
        self.call("change", HcsModifyProcess, document.as_ptr())
    }

    fn call(
        &self,
        verb: &str,
        function: unsafe extern "system" fn(HCS_PROCESS, HCS_OPERATION, PCWSTR) -> HRESULT,
        options: PCWSTR,
    ) -> Result<()> {
        let operation = Operation::new(format!("{verb} {}", self.name))?;
        // SAFETY: the process and the operation are open, and the options outlive the call.
        let begun = unsafe { function(self.handle, operation.handle(), options) };
        operation.wait(begun, PROCESS).map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: the process is open, and this is the handle's only owner.
        unsafe { HcsCloseProcess(self.handle) };
    }
}
