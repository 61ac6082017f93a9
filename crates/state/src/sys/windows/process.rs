//! What the system says of a process's time.

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::PathBuf;

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_INVALID_PARAMETER, FILETIME, WAIT_OBJECT_0,
};
use windows_sys::Win32::System::Threading::{
    GetProcessTimes, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE,
    WaitForSingleObject,
};

use crate::sys::ProcessTimes;
use crate::{Error, Result};

/// When the process started, in units of 100 ns since 1601, and whether it has ended and is only
/// kept by somebody's handle. `None` if there is no such process.
pub(crate) fn process_times(pid: u32) -> Result<Option<ProcessTimes>> {
    let failed = |error| Error::io("inspect", &PathBuf::from(format!("process {pid}")), error);
    let rights = PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE;
    // SAFETY: the call takes numbers only.
    let process = unsafe { OpenProcess(rights, 0, pid) };
    if process.is_null() {
        let error = io::Error::last_os_error();
        return match error.raw_os_error().map(|code| code as u32) {
            // The pid belongs to no process, or to one that is none of ours, such as 0 and 4.
            Some(ERROR_INVALID_PARAMETER | ERROR_ACCESS_DENIED) => Ok(None),
            _ => Err(failed(error)),
        };
    }
    // SAFETY: the call has just made the handle, and nobody else has it.
    let process = unsafe { OwnedHandle::from_raw_handle(process) };
    let [mut created, mut exited, mut kernel, mut user] = [FILETIME::default(); 4];
    let (handle, out) = (process.as_raw_handle(), &mut created);
    // SAFETY: the handle is open, and the four times outlive the call.
    if unsafe { GetProcessTimes(handle, out, &mut exited, &mut kernel, &mut user) } == 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    // SAFETY: the handle is open.
    let ended = unsafe { WaitForSingleObject(handle, 0) } == WAIT_OBJECT_0;
    let start_time = u64::from(created.dwHighDateTime) << 32 | u64::from(created.dwLowDateTime);
    Ok(Some(ProcessTimes { start_time, ended }))
}
