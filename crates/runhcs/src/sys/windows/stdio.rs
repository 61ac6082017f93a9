//! The standard handles of this process and of those it passes them to.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::windows::io::{
    AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle, RawHandle,
};

use windows_sys::Win32::Foundation::{DUPLICATE_SAME_ACCESS, DuplicateHandle, HANDLE};
use windows_sys::Win32::System::Console::{
    GetStdHandle, STD_ERROR_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE,
};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

/// This process's standard handles, as inheritable copies for a container shim; `None` where there
/// is none.
pub struct Own {
    handles: [Option<OwnedHandle>; 3],
}

impl Own {
    /// Copies them.
    pub fn copy() -> io::Result<Self> {
        let mut handles = [None, None, None];
        for (place, kind) in
            handles.iter_mut().zip([STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE])
        {
            // SAFETY: the call takes a number only.
            let handle = unsafe { GetStdHandle(kind) };
            if handle.is_null() || handle as isize == -1 {
                continue;
            }
            // SAFETY: the handle stays open for this call: nothing closes standard handles.
            *place = Some(inheritable(unsafe { BorrowedHandle::borrow_raw(handle) })?);
        }
        Ok(Self { handles })
    }

    /// The arguments that tell a container shim of them.
    pub fn arguments(&self) -> Vec<String> {
        let named = ["--stdin", "--stdout", "--stderr"].iter().zip(&self.handles);
        named
            .filter_map(|(name, handle)| {
                let number = handle.as_ref()?.as_raw_handle() as usize;
                Some([(*name).to_owned(), number.to_string()])
            })
            .flatten()
            .collect()
    }

    /// The copies.
    pub fn handles(&self) -> Vec<BorrowedHandle<'_>> {
        self.handles.iter().flatten().map(AsHandle::as_handle).collect()
    }

    /// Whether one of them is a console's.
    pub fn is_console(&self) -> bool {
        std::io::stdin().is_terminal()
            || std::io::stdout().is_terminal()
            || std::io::stderr().is_terminal()
    }
}

/// An inheritable copy of a handle.
pub fn inheritable(handle: BorrowedHandle<'_>) -> io::Result<OwnedHandle> {
    let mut copy: HANDLE = std::ptr::null_mut();
    // SAFETY: the handle is open, this process's pseudo handle always is, and the copy's place
    // outlives the call.
    let done = unsafe {
        let this = GetCurrentProcess();
        let inherit = 1;
        DuplicateHandle(
            this,
            handle.as_raw_handle(),
            this,
            &mut copy,
            0,
            inherit,
            DUPLICATE_SAME_ACCESS,
        )
    };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made the handle, and nobody else has it.
    Ok(unsafe { OwnedHandle::from_raw_handle(copy) })
}

/// A handle that was inherited, by its number.
///
/// # Safety
/// It was passed to this process for its caller alone.
pub unsafe fn inherited(number: usize) -> File {
    // SAFETY: the caller says so.
    File::from(unsafe { OwnedHandle::from_raw_handle(number as RawHandle) })
}
