//! The functions of the service that the check uses, with texts and results.

use std::ffi::c_void;
use std::fs::File;
use std::io::Read;
use std::os::windows::io::{FromRawHandle, OwnedHandle};
use std::sync::mpsc::{Receiver, Sender, channel};

use windows_sys::Win32::Foundation::{HANDLE, LocalFree};
use windows_sys::Win32::System::HostComputeSystem::{
    HCS_EVENT, HCS_OPERATION, HCS_PROCESS_INFORMATION, HcsCloseComputeSystem, HcsCloseOperation,
    HcsCloseProcess, HcsCreateComputeSystem, HcsCreateOperation, HcsCreateProcess,
    HcsOpenComputeSystem, HcsSetComputeSystemCallback, HcsWaitForOperationResult,
    HcsWaitForOperationResultAndProcessInfo, HcsWaitForProcessExit,
};
use windows_sys::core::{HRESULT, PCWSTR, PWSTR};

/// How long an operation may take, in milliseconds. Hanging is tested with less.
const LIMIT: u32 = 60_000;

/// What a function returned, and the document that came with it.
pub type Outcome = (u32, String);

/// A function of a system or of a process with options.
type Function = unsafe extern "system" fn(*mut c_void, HCS_OPERATION, PCWSTR) -> HRESULT;

/// A system's handle.
pub struct System(*mut c_void);

/// A process's handle.
pub struct Process {
    handle: *mut c_void,
    /// Where to write its input.
    pub input: Option<File>,
    /// Where to read its output.
    pub output: Option<File>,
}

struct Operation(HCS_OPERATION);

impl Operation {
    fn new() -> Self {
        // SAFETY: neither a context nor a callback is needed.
        Self(unsafe { HcsCreateOperation(std::ptr::null(), None) })
    }

    fn wait(&self, begun: HRESULT, limit: u32) -> Outcome {
        if begun < 0 {
            return (begun.cast_unsigned(), String::new());
        }
        let mut text = std::ptr::null_mut();
        // SAFETY: the operation is open and `text` outlives the call.
        let code = unsafe { HcsWaitForOperationResult(self.0, limit, &mut text) };
        (code.cast_unsigned(), take(text))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: the operation is open, and nobody uses it after this.
        unsafe { HcsCloseOperation(self.0) };
    }
}

impl System {
    /// `HcsCreateComputeSystem`.
    pub fn create(id: &str, document: &str) -> Result<Self, Outcome> {
        let (id, document, operation) = (wide(id), wide(document), Operation::new());
        let mut handle = std::ptr::null_mut();
        // SAFETY: the texts end with a zero; all outlives the call.
        let begun = unsafe {
            HcsCreateComputeSystem(
                id.as_ptr(),
                document.as_ptr(),
                operation.0,
                std::ptr::null(),
                &mut handle,
            )
        };
        let system = Self(handle);
        match operation.wait(begun, LIMIT) {
            (0, _) => Ok(system),
            failure => Err(failure),
        }
    }

    /// `HcsOpenComputeSystem`.
    pub fn open(id: &str) -> Result<Self, Outcome> {
        let id = wide(id);
        let mut handle = std::ptr::null_mut();
        // SAFETY: the text ends with a zero; all outlives the call.
        match unsafe { HcsOpenComputeSystem(id.as_ptr(), 0x1000_0000, &mut handle) } {
            0 => Ok(Self(handle)),
            code => Err((code.cast_unsigned(), String::new())),
        }
    }

    /// A function with options.
    pub fn call(&self, function: Function, options: Option<&str>) -> Outcome {
        self.call_within(function, options, LIMIT)
    }

    /// A function that may take so many milliseconds.
    pub fn call_within(&self, function: Function, options: Option<&str>, limit: u32) -> Outcome {
        call(self.0, function, options, limit)
    }

    /// `HcsSetComputeSystemCallback`: the types of events that come.
    pub fn events(&self) -> Receiver<i32> {
        unsafe extern "system" fn tell(event: *const HCS_EVENT, context: *const c_void) {
            // SAFETY: both are what the check and the library gave.
            let (event, sender) = unsafe { (&*event, &*context.cast::<Sender<i32>>()) };
            let _ = sender.send(event.Type);
        }
        let (sender, receiver) = channel();
        let context: *const Sender<i32> = Box::leak(Box::new(sender));
        // SAFETY: the context is never freed.
        unsafe { HcsSetComputeSystemCallback(self.0, 0, context.cast(), Some(tell)) };
        receiver
    }

    /// `HcsCreateProcess`.
    pub fn process(&self, parameters: &str) -> Result<Process, Outcome> {
        let (parameters, operation) = (wide(parameters), Operation::new());
        let mut handle = std::ptr::null_mut();
        // SAFETY: the text ends with a zero; all outlives the call.
        let begun = unsafe {
            HcsCreateProcess(
                self.0,
                parameters.as_ptr(),
                operation.0,
                std::ptr::null(),
                &mut handle,
            )
        };
        if begun < 0 {
            return Err((begun.cast_unsigned(), String::new()));
        }
        let mut information = HCS_PROCESS_INFORMATION::default();
        let mut text = std::ptr::null_mut();
        // SAFETY: all outlives the call.
        let code = unsafe {
            HcsWaitForOperationResultAndProcessInfo(operation.0, LIMIT, &mut information, &mut text)
        };
        let text = take(text);
        if code < 0 {
            return Err((code.cast_unsigned(), text));
        }
        Ok(Process {
            handle,
            input: owned(information.StdInput),
            output: owned(information.StdOutput),
        })
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // SAFETY: the handle is open or null, and nobody uses it after this.
        unsafe { HcsCloseComputeSystem(self.0) };
    }
}

impl Process {
    /// A function with options.
    pub fn call(&self, function: Function, options: Option<&str>) -> Outcome {
        call(self.handle, function, options, LIMIT)
    }

    /// All that it writes.
    pub fn read(&mut self) -> String {
        let mut text = String::new();
        if let Some(output) = &mut self.output {
            let _ = output.read_to_string(&mut text);
        }
        text.trim_end().to_owned()
    }

    /// `HcsWaitForProcessExit`: the exit code.
    pub fn wait(&self) -> i64 {
        let mut text = std::ptr::null_mut();
        // SAFETY: the handle is open and `text` outlives the call.
        let code = unsafe { HcsWaitForProcessExit(self.handle, LIMIT, &mut text) };
        let status: serde_json::Value = serde_json::from_str(&take(text)).unwrap_or_default();
        if code < 0 { code.into() } else { status["ExitCode"].as_i64().unwrap_or(-1) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and nobody uses it after this.
        unsafe { HcsCloseProcess(self.handle) };
    }
}

fn call(handle: *mut c_void, function: Function, options: Option<&str>, limit: u32) -> Outcome {
    let (options, operation) = (options.map(wide), Operation::new());
    let options = options.as_ref().map_or(std::ptr::null(), |options| options.as_ptr());
    // SAFETY: the text is null or ends with a zero; all outlives the call.
    operation.wait(unsafe { function(handle, operation.0, options) }, limit)
}

fn owned(handle: HANDLE) -> Option<File> {
    // SAFETY: the library gave the handle to this process.
    (!handle.is_null()).then(|| File::from(unsafe { OwnedHandle::from_raw_handle(handle.cast()) }))
}

fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// A text that the library gave, which is freed.
fn take(text: PWSTR) -> String {
    if text.is_null() {
        return String::new();
    }
    let mut length = 0;
    // SAFETY: the text ends with a zero, and is the caller's to free.
    unsafe {
        while *text.add(length) != 0 {
            length += 1;
        }
        let copy = String::from_utf16_lossy(std::slice::from_raw_parts(text, length));
        LocalFree(text.cast());
        copy
    }
}
