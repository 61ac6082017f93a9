//! Waiting in the foreground for the shim of a container's process. What is typed to interrupt this
//! process is the container's, and its console is in raw mode for a process that has one.

use std::io::IsTerminal;
use std::os::windows::io::AsRawHandle;

use anyhow::Result;
use windows_sys::Win32::System::Console::{
    CONSOLE_MODE, DISABLE_NEWLINE_AUTO_RETURN, ENABLE_ECHO_INPUT, ENABLE_LINE_INPUT,
    ENABLE_PROCESSED_INPUT, ENABLE_VIRTUAL_TERMINAL_INPUT, ENABLE_VIRTUAL_TERMINAL_PROCESSING,
    GetConsoleMode, SetConsoleCtrlHandler, SetConsoleMode,
};

use super::process;

/// Waits until a shim that this process started has ended, and returns its exit code.
pub fn wait(has_console: bool, shim: u32) -> Result<u32> {
    // The shim is in a process group of its own: what ends this process is nothing to it. So this
    // one stays, too, until the container has ended.
    // SAFETY: without a handler, the call only has Ctrl-C ignored.
    unsafe { SetConsoleCtrlHandler(None, 1) };
    let _raw = has_console.then(Raw::enter);
    process::wait(shim)
}

/// This process's console in raw mode until this is dropped.
struct Raw(Vec<(std::os::windows::io::RawHandle, CONSOLE_MODE)>);

impl Raw {
    /// Sets standard input and output to raw mode, as far as they are consoles.
    fn enter() -> Self {
        let mut before = Vec::new();
        let input = ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT | ENABLE_PROCESSED_INPUT;
        let output = ENABLE_VIRTUAL_TERMINAL_PROCESSING | DISABLE_NEWLINE_AUTO_RETURN;
        for (is_console, handle, off, on) in [
            (
                std::io::stdin().is_terminal(),
                std::io::stdin().as_raw_handle(),
                input,
                ENABLE_VIRTUAL_TERMINAL_INPUT,
            ),
            (std::io::stdout().is_terminal(), std::io::stdout().as_raw_handle(), 0, output),
        ] {
            let mut mode = 0;
            // SAFETY: the handle is a console's, and the mode outlives the calls.
            let set = is_console
                && unsafe { GetConsoleMode(handle, &mut mode) } != 0
                // SAFETY: as above.
                && unsafe { SetConsoleMode(handle, mode & !off | on) } != 0;
            if set {
                before.push((handle, mode));
            }
        }
        Self(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        for (handle, mode) in &self.0 {
            // SAFETY: the handle is a console's.
            unsafe { SetConsoleMode(*handle, *mode) };
        }
    }
}
