//! Who may use an object: its security descriptor, in Microsoft's notation for them (SDDL).

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};

use anyhow::{Context, Result, bail};
use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE, LocalFree};
use windows_sys::Win32::Security::Authorization::{
    ConvertSecurityDescriptorToStringSecurityDescriptorW,
    ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo, SDDL_REVISION_1,
    SE_KERNEL_OBJECT, SE_OBJECT_TYPE, SE_REGISTRY_KEY,
};
use windows_sys::Win32::Security::{DACL_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR};
use windows_sys::Win32::Storage::FileSystem::{CreateFileW, OPEN_EXISTING, READ_CONTROL};
use windows_sys::Win32::System::Threading::OpenMutexW;

use crate::registry::{self, wide};

/// Says an object's list of rights.
pub fn say(kind: &str, name: &str) -> Result<()> {
    let what = || format!("open the {kind} {name}");
    let descriptor = match kind {
        "key" => {
            let key = registry::open(name, READ_CONTROL).with_context(what)?;
            of(key.0.cast(), SE_REGISTRY_KEY)
        }
        "pipe" => {
            let wide = wide(name);
            // SAFETY: the name ends with a zero; no attributes and no template are given.
            let handle = unsafe {
                let none = std::ptr::null();
                let no_template = std::ptr::null_mut();
                CreateFileW(wide.as_ptr(), READ_CONTROL, 0, none, OPEN_EXISTING, 0, no_template)
            };
            of(own(handle).with_context(what)?.as_raw_handle(), SE_KERNEL_OBJECT)
        }
        "mutex" => {
            let wide = wide(name);
            // SAFETY: the name ends with a zero.
            let handle = unsafe { OpenMutexW(READ_CONTROL, 0, wide.as_ptr()) };
            of(own(handle).with_context(what)?.as_raw_handle(), SE_KERNEL_OBJECT)
        }
        _ => bail!("an unknown kind of object: {kind}"),
    };
    println!("{}", descriptor.with_context(|| format!("ask who may use the {kind} {name}"))?);
    Ok(())
}

/// Makes a registry key with rights of its own.
pub fn hand_down(name: &str, sddl: &str) -> Result<()> {
    let text = wide(sddl);
    let mut descriptor: PSECURITY_DESCRIPTOR = std::ptr::null_mut();
    // SAFETY: the text ends with a zero, and the descriptor's place outlives the call.
    let done = unsafe {
        let (place, no_size) = (&mut descriptor, std::ptr::null_mut());
        let revision = SDDL_REVISION_1;
        ConvertStringSecurityDescriptorToSecurityDescriptorW(
            text.as_ptr(),
            revision,
            place,
            no_size,
        )
    };
    if done == 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("understand {sddl}"));
    }
    let made = registry::create_with(name, descriptor);
    // SAFETY: the call above made it, and nobody uses it any more.
    unsafe { LocalFree(descriptor) };
    made.with_context(|| format!("make the key {name}"))
}

fn of(handle: HANDLE, kind: SE_OBJECT_TYPE) -> io::Result<String> {
    let mut descriptor: PSECURITY_DESCRIPTOR = std::ptr::null_mut();
    // SAFETY: the handle is open; what isn't asked for needs no place.
    let code = unsafe {
        GetSecurityInfo(
            handle,
            kind,
            DACL_SECURITY_INFORMATION,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &mut descriptor,
        )
    };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code.cast_signed()));
    }
    let mut text = std::ptr::null_mut();
    // SAFETY: the descriptor is the one just made, and the text's place outlives the call.
    let done = unsafe {
        let (revision, no_length) = (SDDL_REVISION_1, std::ptr::null_mut());
        let what = DACL_SECURITY_INFORMATION;
        ConvertSecurityDescriptorToStringSecurityDescriptorW(
            descriptor, revision, what, &mut text, no_length,
        )
    };
    let result = if done == 0 { Err(io::Error::last_os_error()) } else { Ok(read(text)) };
    // SAFETY: the calls above made both, and nobody uses them any more; null is allowed.
    unsafe {
        LocalFree(text.cast());
        LocalFree(descriptor);
    }
    result
}

/// A text of the system's.
fn read(text: *const u16) -> String {
    // SAFETY: the text ends with a zero.
    let units = unsafe {
        let length = (0..).take_while(|&at| *text.add(at) != 0).count();
        std::slice::from_raw_parts(text, length)
    };
    String::from_utf16_lossy(units)
}

fn own(handle: HANDLE) -> io::Result<OwnedHandle> {
    if handle.is_null() || handle == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller's call has just made the handle, and nobody else has it.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}
