//! Named pipes on which shims are asked. Only administrators can make pipes of their prefix
//! (Microsoft Learn, "Named pipes" and "ProtectedPrefix"), so whoever answers is a shim; and only
//! they can open one of these, so whoever asks may.
//!
//! A connection carries messages. Every wait for one has a deadline or ends with the other side.

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use std::time::{Duration, Instant};

use runhcs_state::AdministratorsOnly;
use windows_sys::Win32::Foundation::{
    ERROR_BROKEN_PIPE, ERROR_FILE_NOT_FOUND, ERROR_IO_PENDING, ERROR_MORE_DATA, ERROR_NO_DATA,
    ERROR_PIPE_BUSY, ERROR_PIPE_CONNECTED, GENERIC_READ, GENERIC_WRITE, HANDLE,
    INVALID_HANDLE_VALUE, WAIT_OBJECT_0, WAIT_TIMEOUT,
};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, OPEN_EXISTING,
    PIPE_ACCESS_DUPLEX, ReadFile, SECURITY_IDENTIFICATION, SECURITY_SQOS_PRESENT, WriteFile,
};
use windows_sys::Win32::System::IO::{CancelIoEx, GetOverlappedResult, OVERLAPPED};
use windows_sys::Win32::System::Pipes::{
    ConnectNamedPipe, CreateNamedPipeW, PIPE_READMODE_MESSAGE, PIPE_REJECT_REMOTE_CLIENTS,
    PIPE_TYPE_MESSAGE, PIPE_UNLIMITED_INSTANCES, PIPE_WAIT, SetNamedPipeHandleState,
};
use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, WaitForSingleObject};

/// What all of their names begin with.
const PREFIX: &str = r"\\.\pipe\ProtectedPrefix\Administrators\";
/// What the name of every pipe begins with.
const ANY: &str = r"\\.\pipe\";
/// The longest message, in bytes.
const LONGEST: usize = 64 << 10;
/// How long to wait before a pipe whose instances are all taken is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether a path is that of a named pipe.
pub fn is_pipe(path: &Path) -> bool {
    let text = path.to_string_lossy().replace('/', r"\");
    text.get(..ANY.len()).is_some_and(|start| start.eq_ignore_ascii_case(ANY))
}

/// The pipe of a container shim, by its container's unique id.
pub fn of_container(unique_id: &str) -> String {
    format!("{PREFIX}runhcs-shim-{unique_id}")
}

/// The pipe of a VM shim, by its host's unique id.
pub fn of_vm(unique_id: &str) -> String {
    format!("{PREFIX}runhcs-vm-{unique_id}")
}

/// A pipe that is listened on.
pub struct Listener {
    name: Vec<u16>,
    /// The instance that the next client gets.
    next: OwnedHandle,
}

impl Listener {
    /// Makes the pipe.
    ///
    /// # Errors
    /// Somebody else has it.
    pub fn bind(name: &str) -> io::Result<Self> {
        let name: Vec<u16> = name.encode_utf16().chain([0]).collect();
        let next = instance(&name, FILE_FLAG_FIRST_PIPE_INSTANCE)?;
        Ok(Self { name, next })
    }

    /// Waits for a client, however long.
    pub fn accept(&mut self) -> io::Result<Connection> {
        let handle = self.next.as_raw_handle();
        // SAFETY: the pipe is open, and `overlapped` is the call's until it is done.
        let connected =
            perform(handle, None, |overlapped| unsafe { ConnectNamedPipe(handle, overlapped) });
        match connected {
            Ok(_) => {}
            Err(error) if is(&error, ERROR_PIPE_CONNECTED) => {}
            // It came and went.
            Err(error) if is(&error, ERROR_NO_DATA) => {}
            Err(error) => return Err(error),
        }
        let next = instance(&self.name, 0)?;
        Ok(Connection(std::mem::replace(&mut self.next, next)))
    }
}

fn instance(name: &[u16], flags: u32) -> io::Result<OwnedHandle> {
    let size = LONGEST as u32;
    let rights = AdministratorsOnly::new()?;
    // SAFETY: the name has a 0 at its end; it, the attributes and the rights in them outlive the
    // call.
    let handle = unsafe {
        CreateNamedPipeW(
            name.as_ptr(),
            PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED | flags,
            PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE | PIPE_WAIT | PIPE_REJECT_REMOTE_CLIENTS,
            PIPE_UNLIMITED_INSTANCES,
            size,
            size,
            0,
            &rights.attributes(),
        )
    };
    own(handle)
}

/// One side of a pipe.
#[derive(Debug)]
pub struct Connection(OwnedHandle);

impl Connection {
    /// Connects to a pipe.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if nobody listens.
    pub fn connect(name: &str, limit: Duration) -> io::Result<Self> {
        let end = Instant::now() + limit;
        let name: Vec<u16> = name.encode_utf16().chain([0]).collect();
        let handle = loop {
            // SAFETY: the name has a 0 at its end and outlives the call; neither security
            // attributes nor a template are given. Whoever listens can't act as this process.
            let handle = unsafe {
                CreateFileW(
                    name.as_ptr(),
                    GENERIC_READ | GENERIC_WRITE,
                    0,
                    std::ptr::null(),
                    OPEN_EXISTING,
                    FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION,
                    std::ptr::null_mut(),
                )
            };
            match own(handle) {
                Err(error) if is(&error, ERROR_PIPE_BUSY) && Instant::now() < end => {
                    std::thread::sleep(PAUSE);
                }
                outcome => break outcome?,
            }
        };
        let mode = PIPE_READMODE_MESSAGE;
        // SAFETY: the pipe is open, and the mode outlives the call.
        let set = unsafe {
            let (raw, none) = (handle.as_raw_handle(), std::ptr::null());
            SetNamedPipeHandleState(raw, &mode, none, none)
        };
        if set == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(handle))
    }

    /// Sends a message.
    pub fn send(&self, message: &[u8], limit: Duration) -> io::Result<()> {
        if message.len() > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
        }
        let handle = self.0.as_raw_handle();
        // SAFETY: the pipe is open; the message and `overlapped` outlive the operation.
        perform(handle, Some(limit), |overlapped| unsafe {
            WriteFile(
                handle,
                message.as_ptr(),
                message.len() as u32,
                std::ptr::null_mut(),
                overlapped,
            )
        })?;
        Ok(())
    }

    /// Receives a message; an empty one if the other side has closed. Without a limit it waits for
    /// one of the two, however long.
    pub fn receive(&self, limit: Option<Duration>) -> io::Result<Vec<u8>> {
        let handle = self.0.as_raw_handle();
        let mut message = vec![0; LONGEST];
        // SAFETY: the pipe is open; the buffer and `overlapped` outlive the operation.
        let received = perform(handle, limit, |overlapped| unsafe {
            ReadFile(handle, message.as_mut_ptr(), LONGEST as u32, std::ptr::null_mut(), overlapped)
        });
        match received {
            Ok(length) => message.truncate(length as usize),
            Err(error) if is(&error, ERROR_BROKEN_PIPE) => message.clear(),
            Err(error) if is(&error, ERROR_MORE_DATA) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
            }
            Err(error) => return Err(error),
        }
        Ok(message)
    }
}

/// Whether nobody listens on a pipe.
pub fn is_absent(error: &io::Error) -> bool {
    is(error, ERROR_FILE_NOT_FOUND)
}

fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error() == Some(code as i32)
}

fn own(handle: HANDLE) -> io::Result<OwnedHandle> {
    if handle.is_null() || handle == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a call has just made the handle, and nobody else has it.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// Performs an operation on a pipe and waits for its end; without a limit however long. Returns
/// how many bytes it moved. When this returns, the operation is done or has been cancelled: the
/// system uses neither `overlapped` nor any buffer any more.
fn perform(
    handle: HANDLE,
    limit: Option<Duration>,
    begin: impl FnOnce(*mut OVERLAPPED) -> i32,
) -> io::Result<u32> {
    // SAFETY: neither attributes nor a name are given.
    let event = own(unsafe { CreateEventW(std::ptr::null(), 1, 0, std::ptr::null()) })?;
    let mut overlapped = OVERLAPPED { hEvent: event.as_raw_handle(), ..OVERLAPPED::default() };
    if begin(&mut overlapped) == 0 {
        let error = io::Error::last_os_error();
        if !is(&error, ERROR_IO_PENDING) {
            return Err(error);
        }
    }
    let milliseconds =
        limit.map_or(INFINITE, |limit| u32::try_from(limit.as_millis()).unwrap_or(INFINITE));
    // SAFETY: the event is open.
    let waited = unsafe { WaitForSingleObject(event.as_raw_handle(), milliseconds) };
    if waited != WAIT_OBJECT_0 {
        // SAFETY: the pipe is open, and the operation is this one's.
        unsafe { CancelIoEx(handle, &overlapped) };
    }
    let mut moved = 0;
    // SAFETY: the pipe is open, and both places outlive the call, which waits for the end.
    let done = unsafe { GetOverlappedResult(handle, &overlapped, &mut moved, 1) };
    match (done, waited) {
        (0, WAIT_TIMEOUT) => Err(io::ErrorKind::TimedOut.into()),
        (0, _) => Err(io::Error::last_os_error()),
        _ => Ok(moved),
    }
}
