//! The caller's console: raw while a process runs that has a console of its own.

use std::io::IsTerminal;
use std::os::windows::io::{AsRawHandle, RawHandle};

use runhcs_hcs::schema::ConsoleSize;
use windows_sys::Win32::Globalization::CP_UTF8;
use windows_sys::Win32::System::Console::{
    CONSOLE_MODE, CONSOLE_SCREEN_BUFFER_INFO, DISABLE_NEWLINE_AUTO_RETURN, ENABLE_ECHO_INPUT,
    ENABLE_LINE_INPUT, ENABLE_PROCESSED_INPUT, ENABLE_PROCESSED_OUTPUT,
    ENABLE_VIRTUAL_TERMINAL_INPUT, ENABLE_VIRTUAL_TERMINAL_PROCESSING, GetConsoleCP,
    GetConsoleMode, GetConsoleOutputCP, GetConsoleScreenBufferInfo, SetConsoleCP, SetConsoleMode,
    SetConsoleOutputCP,
};

/// What a console does by itself with keys, which the process is to do.
const COOKED: CONSOLE_MODE = ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT | ENABLE_PROCESSED_INPUT;
/// What a console does with what the process writes: it follows escape sequences.
const SHOWN: CONSOLE_MODE = ENABLE_PROCESSED_OUTPUT | ENABLE_VIRTUAL_TERMINAL_PROCESSING;

/// This process's console in raw mode, as far as standard input and output are one, until this is
/// dropped: keys come as the characters and escape sequences that a terminal sends, in UTF-8, and
/// what is written is shown as a terminal shows it.
#[must_use]
#[derive(Debug)]
pub struct Raw {
    modes: Vec<(RawHandle, CONSOLE_MODE)>,
    /// Of input and output.
    code_pages: Option<(u32, u32)>,
}

impl Raw {
    /// Sets it. A console that is too old for escape sequences stays as it is.
    pub fn enter() -> Self {
        let mut raw = Self { modes: Vec::new(), code_pages: None };
        if std::io::stdin().is_terminal() {
            let handle = std::io::stdin().as_raw_handle();
            raw.change(handle, |mode| mode & !COOKED | ENABLE_VIRTUAL_TERMINAL_INPUT);
        }
        if std::io::stdout().is_terminal() {
            let handle = std::io::stdout().as_raw_handle();
            raw.change(handle, |mode| mode | SHOWN | DISABLE_NEWLINE_AUTO_RETURN);
        }
        if !raw.modes.is_empty() {
            // SAFETY: the calls take numbers only.
            unsafe {
                raw.code_pages = Some((GetConsoleCP(), GetConsoleOutputCP()));
                SetConsoleCP(CP_UTF8);
                SetConsoleOutputCP(CP_UTF8);
            }
        }
        raw
    }

    fn change(&mut self, handle: RawHandle, change: impl FnOnce(CONSOLE_MODE) -> CONSOLE_MODE) {
        let mut mode = 0;
        // SAFETY: the handle is a console's, and the mode outlives the calls.
        let changed = unsafe {
            GetConsoleMode(handle, &mut mode) != 0 && SetConsoleMode(handle, change(mode)) != 0
        };
        if changed {
            self.modes.push((handle, mode));
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some((input, output)) = self.code_pages {
            // SAFETY: the calls take numbers only.
            unsafe {
                SetConsoleCP(input);
                SetConsoleOutputCP(output);
            }
        }
        for (handle, mode) in &self.modes {
            // SAFETY: the handle is a console's: nothing closes standard handles.
            unsafe { SetConsoleMode(*handle, *mode) };
        }
    }
}

/// The size of the console's window, if standard output is one.
pub fn size() -> Option<ConsoleSize> {
    let mut found = CONSOLE_SCREEN_BUFFER_INFO::default();
    // SAFETY: what is found has a place that outlives the call, which refuses other handles.
    let done = unsafe { GetConsoleScreenBufferInfo(std::io::stdout().as_raw_handle(), &mut found) };
    let window = found.srWindow;
    let length = |first: i16, last: i16| u16::try_from(i32::from(last) - i32::from(first) + 1).ok();
    (done != 0).then_some(())?;
    Some(ConsoleSize {
        height: length(window.Top, window.Bottom)?,
        width: length(window.Left, window.Right)?,
    })
}
