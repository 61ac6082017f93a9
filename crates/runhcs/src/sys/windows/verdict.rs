//! The verdict of a shim on its own start: what it writes to its standard output, then closes. Until
//! then its standard error goes the same way, so that whatever keeps it from starting is heard.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::windows::io::{FromRawHandle, OwnedHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use windows_sys::Win32::System::Console::{
    GetStdHandle, STD_ERROR_HANDLE, STD_HANDLE, STD_OUTPUT_HANDLE, SetStdHandle,
};

use super::process::Child;

/// What says that all went well; anything else is an error's text.
pub const READY: &[u8] = b"\0OK\0";
/// How long a shim that has closed its output without a word may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest error's text that is listened to, in bytes.
const LONGEST: u64 = 64 << 10;

/// The way to whoever started this shim.
pub struct Reporter(File);

impl Reporter {
    /// Takes the standard output, which is nobody else's from here on.
    pub fn take() -> Result<Self> {
        match take(STD_OUTPUT_HANDLE) {
            Some(file) => Ok(Self(file)),
            None => bail!("this verb is for runhcs itself: it has nobody to report to"),
        }
    }

    /// Reports that all went well, or why not. Nothing is heard of this shim after that.
    pub fn report<T>(mut self, outcome: &Result<T>) -> Result<()> {
        let written = match outcome {
            Ok(_) => self.0.write_all(READY),
            Err(error) => self.0.write_all(format!("{error:#}").as_bytes()),
        };
        drop(take(STD_ERROR_HANDLE));
        written.context("report to the command")
    }
}

/// Takes a standard handle, of which there is none from here on.
fn take(kind: STD_HANDLE) -> Option<File> {
    // SAFETY: the call takes a number only.
    let handle = unsafe { GetStdHandle(kind) };
    if handle.is_null() || handle as isize == -1 {
        return None;
    }
    // SAFETY: the call takes no pointer that it follows.
    unsafe { SetStdHandle(kind, std::ptr::null_mut()) };
    // SAFETY: the handle was inherited for this process alone, which finds it by its kind only, and
    // no more.
    Some(File::from(unsafe { OwnedHandle::from_raw_handle(handle) }))
}

/// Waits for the verdict of a shim that was started, and ends one that isn't ready. Nothing at all is
/// a verdict, too: it has died. `log` is the option that has it log to a place of its own.
pub fn judge(shim: Child, said: impl Read, name: &str, log: &str) -> Result<Child> {
    let mut text = Vec::new();
    let heard = said.take(LONGEST).read_to_end(&mut text);
    if matches!(heard, Ok(0)) {
        let code = shim.end(PATIENCE)?;
        bail!(
            "the {name} ended without a word, with exit code {code:#x}; what it did until then is \
             in its log, if {log} or --log names one"
        );
    }
    let heard = heard.with_context(|| format!("hear from the {name}"));
    match heard.and_then(|_| understand(&text, name)) {
        Ok(()) => Ok(shim),
        Err(error) => {
            // What went wrong first is what counts.
            if let Err(error) = shim.end(Duration::ZERO) {
                tracing::warn!("{error:#}");
            }
            Err(error)
        }
    }
}

/// What bytes of a verdict say.
pub fn understand(text: &[u8], shim: &str) -> Result<()> {
    match text {
        // Warnings may come before.
        text if text.ends_with(READY) => Ok(()),
        [] => Err(io::Error::from(io::ErrorKind::UnexpectedEof))
            .with_context(|| format!("the {shim} ended without a word")),
        // What comes by its standard error begins as messages of this program do.
        text => {
            let text = String::from_utf8_lossy(text);
            bail!("{shim}: {}", text.trim_end().trim_start_matches("runhcs: "))
        }
    }
}
