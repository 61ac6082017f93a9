//! Texts as Windows takes and gives them.

use std::os::windows::ffi::OsStrExt;

use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::core::{PCWSTR, PWSTR};

/// A text of UTF-16 with a 0 at its end.
pub(super) struct Wide(Vec<u16>);

impl Wide {
    pub(super) fn new(text: impl AsRef<std::ffi::OsStr>) -> Self {
        Self(text.as_ref().encode_wide().chain([0]).collect())
    }

    /// A document.
    pub(super) fn json(document: &impl serde::Serialize) -> Self {
        // Documents of this crate have neither maps with keys that aren't texts nor serializers of
        // their own that fail.
        Self::new(serde_json::to_string(document).expect("a document of this crate is JSON"))
    }

    /// Valid as long as this exists.
    pub(super) fn as_ptr(&self) -> *const u16 {
        self.0.as_ptr()
    }
}

/// Copies a text; an empty one if there is none.
///
/// # Safety
/// It is null, or it has a 0 at its end and lives until this returns.
pub(super) unsafe fn read(text: PCWSTR) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller says so.
    let units = unsafe {
        let length = (0..).take_while(|at| *text.add(*at) != 0).count();
        std::slice::from_raw_parts(text, length)
    };
    String::from_utf16_lossy(units)
}

/// A text that the service allocates for its caller, who frees it with `LocalFree`.
pub(super) struct Returned(PWSTR);

impl Returned {
    pub(super) fn none() -> Self {
        Self(std::ptr::null_mut())
    }

    /// Where the service is to put it.
    pub(super) fn out(&mut self) -> *mut PWSTR {
        &mut self.0
    }

    pub(super) fn text(&self) -> String {
        // SAFETY: the service gave a text with a 0 at its end, which lives until it is freed by
        // this one's end.
        unsafe { read(self.0) }
    }
}

impl Drop for Returned {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the service allocated it for this caller, who frees it once.
            unsafe { LocalFree(self.0.cast()) };
        }
    }
}
