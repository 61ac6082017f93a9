//! The verdict of a shim on its own start: what it writes to its standard output, then closes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::windows::io::{FromRawHandle, OwnedHandle};

use anyhow::{Context, Result, bail};
use windows_sys::Win32::System::Console::{GetStdHandle, STD_OUTPUT_HANDLE, SetStdHandle};

/// What says that all went well; anything else is an error's text.
pub const READY: &[u8] = b"\0OK\0";
/// The longest error's text that is listened to, in bytes.
const LONGEST: u64 = 64 << 10;

/// The way to whoever started this shim.
pub struct Reporter(File);

impl Reporter {
    /// Takes the standard output, which is nobody else's from here on.
    pub fn take() -> Result<Self> {
        // SAFETY: the call takes a number only.
        let handle = unsafe { GetStdHandle(STD_OUTPUT_HANDLE) };
        if handle.is_null() {
            bail!("this verb is for runhcs itself: it has nobody to report to");
        }
        // SAFETY: the handle was inherited for this process alone; nothing has used it before.
        let file = File::from(unsafe { OwnedHandle::from_raw_handle(handle) });
        // SAFETY: the call takes no pointer that it follows.
        unsafe { SetStdHandle(STD_OUTPUT_HANDLE, std::ptr::null_mut()) };
        Ok(Self(file))
    }

    /// Reports that all went well, or why not.
    pub fn report<T>(mut self, outcome: &Result<T>) -> Result<()> {
        let written = match outcome {
            Ok(_) => self.0.write_all(READY),
            Err(error) => self.0.write_all(format!("{error:#}").as_bytes()),
        };
        written.context("report to the command")
    }
}

/// Waits for a shim's verdict. Nothing at all is one, too: it has died.
pub fn hear(from: impl Read, shim: &str) -> Result<()> {
    let mut text = Vec::new();
    from.take(LONGEST).read_to_end(&mut text).with_context(|| format!("hear from the {shim}"))?;
    understand(&text, shim)
}

/// What bytes of a verdict say.
pub fn understand(text: &[u8], shim: &str) -> Result<()> {
    match text {
        READY => Ok(()),
        [] => Err(io::Error::from(io::ErrorKind::UnexpectedEof))
            .with_context(|| format!("the {shim} ended without a word")),
        text => bail!("{shim}: {}", String::from_utf8_lossy(text)),
    }
}
