//! `virtdisk.dll`: virtual disks attached to the host. A disk's handle is one of its file.

use std::ffi::c_void;
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::IntoRawHandle;

use windows_sys::Win32::Foundation::{
    ERROR_INVALID_PARAMETER, ERROR_NOT_READY, ERROR_SERVICE_NOT_ACTIVE, ERROR_SUCCESS, HANDLE,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_READ_ATTRIBUTES, FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE,
    GetFinalPathNameByHandleW, VOLUME_NAME_DOS,
};
use windows_sys::Win32::Storage::Vhd::{
    CREATE_VIRTUAL_DISK_PARAMETERS, CREATE_VIRTUAL_DISK_VERSION_2, VIRTUAL_STORAGE_TYPE,
    VIRTUAL_STORAGE_TYPE_DEVICE_VHDX,
};
use windows_sys::core::PCWSTR;

use super::library;
use super::text::read;
use crate::hresult::{self, Hresult};
use crate::wire::Call;

/// `ATTACH_VIRTUAL_DISK_FLAG_PERMANENT_LIFETIME`.
const PERMANENT: i32 = 4;

/// The file that a disk's handle is of.
pub fn path_of(disk: HANDLE) -> Result<String, Hresult> {
    let mut buffer = vec![0u16; 1024];
    let size = u32::try_from(buffer.len()).unwrap_or_default();
    // SAFETY: the buffer has this size and outlives the call.
    let length =
        unsafe { GetFinalPathNameByHandleW(disk, buffer.as_mut_ptr(), size, VOLUME_NAME_DOS) };
    match usize::try_from(length) {
        Ok(length) if length > 0 && length < buffer.len() => {
            let path = String::from_utf16_lossy(&buffer[..length]);
            Ok(path.trim_start_matches(r"\\?\").to_owned())
        }
        _ => Err(hresult::HANDLE),
    }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn CreateVirtualDisk(
    kind: *const VIRTUAL_STORAGE_TYPE,
    path: PCWSTR,
    _access: i32,
    _security: *const c_void,
    _flags: i32,
    _provider_flags: u32,
    parameters: *const CREATE_VIRTUAL_DISK_PARAMETERS,
    _overlapped: *const c_void,
    handle: *mut HANDLE,
) -> u32 {
    // SAFETY: as the caller promises; version 2 says which part of the union there is.
    let (path, device, size) = unsafe {
        if parameters.is_null() || kind.is_null() || handle.is_null() {
            return ERROR_INVALID_PARAMETER;
        }
        if (*parameters).Version != CREATE_VIRTUAL_DISK_VERSION_2 {
            return ERROR_INVALID_PARAMETER;
        }
        (read(path), (*kind).DeviceId, (*parameters).Anonymous.Version2.MaximumSize)
    };
    let (Some(name), VIRTUAL_STORAGE_TYPE_DEVICE_VHDX) = (path, device) else {
        return ERROR_INVALID_PARAMETER;
    };
    let call = Call::CreateDisk { path: name.clone(), size };
    let made = library().and_then(|library| library.call(call).map_err(|reply| reply.result));
    match made {
        // SAFETY: as the caller promises.
        Ok(_) => unsafe { open(name, handle) },
        Err(failure) => win32(failure),
    }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn OpenVirtualDisk(
    _kind: *const c_void,
    path: PCWSTR,
    _access: i32,
    _flags: i32,
    _parameters: *const c_void,
    handle: *mut HANDLE,
) -> u32 {
    // SAFETY: as the caller promises.
    let (Some(path), false) = (unsafe { read(path) }, handle.is_null()) else {
        return ERROR_INVALID_PARAMETER;
    };
    // SAFETY: as the caller promises.
    unsafe { open(path, handle) }
}

/// Opens a disk's file.
///
/// # Safety
/// There is a place for the handle.
unsafe fn open(path: String, handle: *mut HANDLE) -> u32 {
    let mut options = std::fs::File::options();
    options.access_mode(FILE_READ_ATTRIBUTES);
    options.share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE);
    match options.open(path) {
        Ok(file) => {
            // SAFETY: as the caller promises.
            unsafe { *handle = file.into_raw_handle().cast() };
            ERROR_SUCCESS
        }
        Err(error) => system_code(&error),
    }
}

#[unsafe(no_mangle)]
extern "system" fn AttachVirtualDisk(
    disk: HANDLE,
    _security: *const c_void,
    flags: i32,
    _provider_flags: u32,
    _parameters: *const c_void,
    _overlapped: *const c_void,
) -> u32 {
    outcome(path_of(disk), true, flags & PERMANENT != 0)
}

#[unsafe(no_mangle)]
extern "system" fn DetachVirtualDisk(disk: HANDLE, _flags: i32, _provider_flags: u32) -> u32 {
    outcome(path_of(disk), false, false)
}

fn outcome(path: Result<String, Hresult>, attach: bool, permanent: bool) -> u32 {
    let done = path.and_then(|path| {
        let call = Call::Disk { path, attach, permanent };
        library()?.call(call).map(drop).map_err(|reply| reply.result)
    });
    match done {
        Ok(()) => ERROR_SUCCESS,
        // A disk that isn't attached can't be detached.
        Err(hresult::NOT_FOUND) => ERROR_NOT_READY,
        Err(failure) => win32(failure),
    }
}

/// A failure as these functions have it.
fn win32(failure: Hresult) -> u32 {
    match failure.0 {
        code if code & 0xFFFF_0000 == 0x8007_0000 => code & 0xFFFF,
        _ => ERROR_SERVICE_NOT_ACTIVE,
    }
}

fn system_code(error: &io::Error) -> u32 {
    error.raw_os_error().and_then(|code| u32::try_from(code).ok()).unwrap_or(ERROR_NOT_READY)
}
