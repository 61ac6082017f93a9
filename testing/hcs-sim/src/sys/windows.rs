//! Windows, or Wine: processes in jobs, pipes in callers, signals as named events.

use std::fs::File;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle, RawHandle};
use std::os::windows::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::ptr::null;
use std::sync::atomic::{AtomicU64, Ordering};

use windows_sys::Win32::Foundation::{
    DUPLICATE_CLOSE_SOURCE, DUPLICATE_SAME_ACCESS, DuplicateHandle, HANDLE, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, PIPE_ACCESS_INBOUND, PIPE_ACCESS_OUTBOUND,
};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation,
    SetInformationJobObject, TerminateJobObject,
};
use windows_sys::Win32::System::Pipes::{
    CreateNamedPipeW, PIPE_READMODE_BYTE, PIPE_REJECT_REMOTE_CLIENTS, PIPE_TYPE_BYTE, PIPE_WAIT,
};
use windows_sys::Win32::System::Threading::{
    CreateEventW, EVENT_MODIFY_STATE, GetCurrentProcess, GetExitCodeProcess, INFINITE, OpenEventW,
    OpenProcess, PROCESS_DUP_HANDLE, PROCESS_TERMINATE, SetEvent, TerminateProcess,
    WaitForSingleObject,
};

use crate::model::{Launch, Program, Signal, program_of};
use crate::wire::ProcessInfo;

/// The length of a pipe's buffer, as anonymous pipes have it.
const BUFFER: u32 = 4096;

/// A process that was started, in a job of its own.
#[derive(Debug)]
pub struct Running {
    child: Child,
    job: OwnedHandle,
}

impl Running {
    /// Starts a process. The ends of its pipes that are the caller's are made handles of the
    /// caller's process.
    ///
    /// # Errors
    /// If it can't be started, or the caller has gone.
    pub fn start(launch: &Launch, caller: u32) -> io::Result<(Self, ProcessInfo)> {
        let mut command = match &launch.program {
            Program::Windows(line) => {
                let (program, rest) = program_of(line);
                let mut command = Command::new(program);
                command.raw_arg(rest);
                command
            }
            Program::Linux(arguments) => {
                let service = std::env::current_exe()?;
                let mut command = Command::new(service.with_file_name("hcs-sim-guest.exe"));
                command.args(arguments);
                command
            }
        };
        command.envs(launch.environment.iter().cloned());
        if let Some(directory) = &launch.directory {
            command.current_dir(directory);
        }
        let [input, output, error] = launch.pipes;
        let mut callers = Vec::new();
        let mut stream = |wanted: bool, is_input: bool| {
            if !wanted {
                callers.push(None);
                return Ok(Stdio::null());
            }
            let (callers_end, childs_end) = pipe(is_input)?;
            callers.push(Some(callers_end));
            io::Result::Ok(Stdio::from(childs_end))
        };
        command.stdin(stream(input, true)?);
        command.stdout(stream(output, false)?);
        command.stderr(stream(error, false)?);
        let job = new_job()?;
        let mut child = command.spawn()?;
        // The child's ends are closed here, so that streams end with the processes that have them.
        drop(command);
        // SAFETY: both handles are open.
        let assigned = unsafe { AssignProcessToJobObject(raw(&job), child.as_raw_handle().cast()) };
        // A process that has ended already can't be put into a job, and needn't be.
        if assigned == 0 && matches!(child.try_wait(), Ok(None)) {
            let error = io::Error::last_os_error();
            let _ = child.kill();
            return Err(error);
        }
        let mut handles = [0; 3];
        for (handle, end) in handles.iter_mut().zip(callers) {
            if let Some(end) = end {
                *handle = give(end, caller).inspect_err(|_| kill_job(&job, 1))?;
            }
        }
        let [input, output, error] = handles;
        let info = ProcessInfo { process: child.id(), input, output, error };
        Ok((Self { child, job }, info))
    }

    /// Waits for its end and returns its exit code.
    pub fn wait(&self) -> u32 {
        let process: HANDLE = self.child.as_raw_handle().cast();
        let mut code = 1;
        // SAFETY: the handle is open as long as `child` lives, and `code` outlives the call.
        unsafe {
            WaitForSingleObject(process, INFINITE);
            GetExitCodeProcess(process, &mut code);
        }
        code
    }

    /// Ends it, and all that it started.
    pub fn kill(&self, code: u32) {
        let process: HANDLE = self.child.as_raw_handle().cast();
        // SAFETY: the handle is open as long as `child` lives.
        unsafe { TerminateProcess(process, code) };
        kill_job(&self.job, code);
    }

    /// Passes a signal on if its program has asked for it; else ends it.
    pub fn signal(&self, signal: Signal) {
        if let Some(number) = signal.number {
            let name = wide(&event_name(self.id(), number));
            // SAFETY: the name ends with a zero and outlives the call.
            let event = unsafe { OpenEventW(EVENT_MODIFY_STATE, 0, name.as_ptr()) };
            if !event.is_null() {
                // SAFETY: the call has returned a handle that is nobody else's.
                let event = unsafe { OwnedHandle::from_raw_handle(event.cast()) };
                // SAFETY: the handle is open.
                unsafe { SetEvent(raw(&event)) };
                return;
            }
        }
        self.kill(signal.exit_code);
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

/// A caller's process. As long as this is there, no other process has its id.
#[derive(Debug)]
pub struct Caller(Option<OwnedHandle>);

impl Caller {
    /// Finds a process that waits for an answer, and so is there.
    pub fn find(process: u32) -> Self {
        // SAFETY: the call takes no pointers.
        let handle = unsafe { OpenProcess(PROCESS_TERMINATE, 0, process) };
        // SAFETY: the call has returned a handle that is nobody else's.
        Self((!handle.is_null()).then(|| unsafe { OwnedHandle::from_raw_handle(handle.cast()) }))
    }

    /// Kills it, if it is still there.
    pub fn kill(&self) {
        if let Some(handle) = &self.0 {
            // SAFETY: the handle is open.
            unsafe { TerminateProcess(raw(handle), 137) };
        }
    }
}

/// Ends this process with a code when a signal comes.
///
/// # Errors
/// If the event for it can't be made.
pub fn on_signal(signal: u8, code: i32) -> io::Result<()> {
    let name = wide(&event_name(std::process::id(), signal));
    // SAFETY: the name ends with a zero and outlives the call.
    let event = unsafe { CreateEventW(null(), 1, 0, name.as_ptr()) };
    if event.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has returned a handle that is nobody else's.
    let event = unsafe { OwnedHandle::from_raw_handle(event.cast()) };
    std::thread::spawn(move || {
        // SAFETY: the handle is open.
        unsafe { WaitForSingleObject(raw(&event), INFINITE) };
        std::process::exit(code);
    });
    Ok(())
}

fn event_name(process: u32, signal: u8) -> String {
    format!("hcs-sim-signal-{process}-{signal}")
}

/// A pipe: the caller's end, which is for overlapped use as the real service's are, and the
/// process's.
fn pipe(is_input: bool) -> io::Result<(OwnedHandle, OwnedHandle)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!(r"\\.\pipe\hcs-sim-{}-{number}", std::process::id());
    let access = if is_input { PIPE_ACCESS_OUTBOUND } else { PIPE_ACCESS_INBOUND };
    let wide_name = wide(&name);
    // SAFETY: the name ends with a zero and outlives the call.
    let server = unsafe {
        CreateNamedPipeW(
            wide_name.as_ptr(),
            access | FILE_FLAG_OVERLAPPED | FILE_FLAG_FIRST_PIPE_INSTANCE,
            PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_WAIT | PIPE_REJECT_REMOTE_CLIENTS,
            1,
            BUFFER,
            BUFFER,
            0,
            null(),
        )
    };
    if server == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has returned a handle that is nobody else's.
    let server = unsafe { OwnedHandle::from_raw_handle(server.cast()) };
    let client = File::options().read(is_input).write(!is_input).open(&name)?;
    Ok((server, client.into()))
}

/// Moves a handle into another process and returns its number there.
fn give(handle: OwnedHandle, process: u32) -> io::Result<u64> {
    // SAFETY: the call takes no pointers.
    let target = unsafe { OpenProcess(PROCESS_DUP_HANDLE, 0, process) };
    if target.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has returned a handle that is nobody else's.
    let target = unsafe { OwnedHandle::from_raw_handle(target.cast()) };
    let mut given: HANDLE = std::ptr::null_mut();
    let source: RawHandle = std::os::windows::io::IntoRawHandle::into_raw_handle(handle);
    let options = DUPLICATE_SAME_ACCESS | DUPLICATE_CLOSE_SOURCE;
    // SAFETY: the handles are open, `given` outlives the call, and the source, which the call
    // closes, is nobody's any more.
    let done = unsafe {
        DuplicateHandle(GetCurrentProcess(), source.cast(), raw(&target), &mut given, 0, 0, options)
    };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(given as u64) }
}

/// A job whose processes end when its handle is closed, that is, also with the service.
fn new_job() -> io::Result<OwnedHandle> {
    // SAFETY: no name and no attributes are allowed.
    let job = unsafe { CreateJobObjectW(null(), null()) };
    if job.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has returned a handle that is nobody else's.
    let job = unsafe { OwnedHandle::from_raw_handle(job.cast()) };
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
    let length = u32::try_from(size_of_val(&limits)).unwrap_or_default();
    // SAFETY: the structure is the one of this class and outlives the call.
    let done = unsafe {
        SetInformationJobObject(
            raw(&job),
            JobObjectExtendedLimitInformation,
            (&raw const limits).cast(),
            length,
        )
    };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(job) }
}

fn kill_job(job: &OwnedHandle, code: u32) {
    // SAFETY: the handle is open.
    unsafe { TerminateJobObject(raw(job), code) };
}

fn raw(handle: &OwnedHandle) -> HANDLE {
    handle.as_raw_handle().cast()
}

fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}
