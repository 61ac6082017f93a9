//! Texts that callers pass, and texts that they get and free.

use windows_sys::Win32::System::Com::CoTaskMemAlloc;
use windows_sys::Win32::System::Memory::{LMEM_FIXED, LocalAlloc};
use windows_sys::core::{PCWSTR, PWSTR};

/// A caller's text; `None` if it is null.
///
/// # Safety
/// The pointer is null or leads to text that ends with a zero.
pub unsafe fn read(text: PCWSTR) -> Option<String> {
    if text.is_null() {
        return None;
    }
    let mut length = 0;
    // SAFETY: the text ends with a zero, up to which every character may be read.
    while unsafe { *text.add(length) } != 0 {
        length += 1;
    }
    // SAFETY: so many characters are there.
    Some(String::from_utf16_lossy(unsafe { std::slice::from_raw_parts(text, length) }))
}

/// Who frees a text.
#[derive(Clone, Copy, Debug)]
pub enum Freed {
    /// `LocalFree`.
    Local,
    /// `CoTaskMemFree`.
    Task,
}

/// Gives the caller a text, or null if there is none.
///
/// # Safety
/// The pointer is null or may be written to.
pub unsafe fn give(out: *mut PWSTR, text: Option<&str>, freed: Freed) {
    if out.is_null() {
        return;
    }
    let copy = text.map_or(std::ptr::null_mut(), |text| {
        let wide: Vec<u16> = text.encode_utf16().chain([0]).collect();
        let size = wide.len() * 2;
        // SAFETY: the calls allocate memory and take no pointers.
        let memory: *mut u16 = match freed {
            Freed::Local => unsafe { LocalAlloc(LMEM_FIXED, size) }.cast(),
            Freed::Task => unsafe { CoTaskMemAlloc(size) }.cast(),
        };
        if !memory.is_null() {
            // SAFETY: the memory is new and has room for all.
            unsafe { memory.copy_from_nonoverlapping(wide.as_ptr(), wide.len()) };
        }
        memory
    });
    // SAFETY: the caller says that the pointer may be written to.
    unsafe { *out = copy };
}
