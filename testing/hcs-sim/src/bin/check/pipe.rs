//! A named pipe that is listened to: what comes goes to standard output.

use std::fs::File;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};

use windows_sys::Win32::Foundation::{ERROR_PIPE_CONNECTED, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Storage::FileSystem::PIPE_ACCESS_INBOUND;
use windows_sys::Win32::System::Pipes::{
    ConnectNamedPipe, CreateNamedPipeW, PIPE_READMODE_BYTE, PIPE_TYPE_BYTE, PIPE_WAIT,
};

/// Listens to one client until it closes. A line says that it can connect.
pub fn listen(name: &str) -> io::Result<()> {
    let wide: Vec<u16> = name.encode_utf16().chain([0]).collect();
    // SAFETY: the name ends with a zero and outlives the call; no security attributes are given.
    let pipe = unsafe {
        let mode = PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_WAIT;
        CreateNamedPipeW(wide.as_ptr(), PIPE_ACCESS_INBOUND, mode, 1, 0, 4096, 0, std::ptr::null())
    };
    if pipe == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has returned a handle that is nobody else's.
    let mut pipe = File::from(unsafe { OwnedHandle::from_raw_handle(pipe.cast()) });
    println!("listening");
    // SAFETY: the pipe is open, and is not for overlapped use.
    let connected = unsafe { ConnectNamedPipe(pipe.as_raw_handle().cast(), std::ptr::null_mut()) };
    if connected == 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(ERROR_PIPE_CONNECTED.cast_signed()) {
            return Err(error);
        }
    }
    io::copy(&mut pipe, &mut io::stdout()).map(drop)
}
