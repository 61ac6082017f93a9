//! Waiting in the foreground for the shim of a container's process. Ctrl-C and Ctrl-Break are passed
//! on to the process, and the console is in raw mode for a process that has one of its own.

use std::io::IsTerminal;
use std::os::windows::io::AsRawHandle;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use anyhow::Result;
use runhcs_compute::Signal;
use windows_sys::Win32::System::Console::{
    CONSOLE_MODE, CTRL_BREAK_EVENT, CTRL_C_EVENT, DISABLE_NEWLINE_AUTO_RETURN, ENABLE_ECHO_INPUT,
    ENABLE_LINE_INPUT, ENABLE_PROCESSED_INPUT, ENABLE_VIRTUAL_TERMINAL_INPUT,
    ENABLE_VIRTUAL_TERMINAL_PROCESSING, GetConsoleMode, SetConsoleCtrlHandler, SetConsoleMode,
};

use super::process;

/// Where events of the console go.
static EVENTS: OnceLock<Sender<Signal>> = OnceLock::new();

/// Waits until a shim that this process started has ended, and returns its exit code. Meanwhile
/// `pass` sends signals to the process that it stands for.
pub fn wait(
    has_console: bool,
    shim: u32,
    pass: impl Fn(Signal) -> Result<()> + Send + 'static,
) -> Result<u32> {
    let (sender, events) = channel();
    // Taken already if this is called again: once is enough, for a command waits for one process.
    let _ = EVENTS.set(sender);
    std::thread::spawn(move || {
        for signal in events {
            // It may have ended.
            if let Err(error) = pass(signal) {
                tracing::warn!("{error:#}");
            }
        }
    });
    // SAFETY: the handler is a function, which stays; it may be called in any thread.
    unsafe { SetConsoleCtrlHandler(Some(on_event), 1) };
    let _raw = has_console.then(Raw::enter);
    process::wait(shim)
}

/// Takes an event of the console: not zero if it is dealt with. All others end this process as ever.
unsafe extern "system" fn on_event(event: u32) -> i32 {
    /// `SIGQUIT` (signal(7)).
    const QUIT: u8 = 3;
    let signal = match event {
        CTRL_C_EVENT => Signal::INT,
        CTRL_BREAK_EVENT => match Signal::try_from(QUIT) {
            Ok(signal) => signal,
            Err(_) => return 0,
        },
        _ => return 0,
    };
    EVENTS.get().is_some_and(|events| events.send(signal).is_ok()).into()
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
