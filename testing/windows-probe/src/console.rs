//! The console that this process shares with a command.

use std::fs::File;
use std::io::{self, Write};
use std::os::windows::io::AsRawHandle;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use windows_sys::Win32::System::Console::{
    CONSOLE_SCREEN_BUFFER_INFO, COORD, GetConsoleMode, GetConsoleScreenBufferInfo, SMALL_RECT,
    SetConsoleScreenBufferSize, SetConsoleWindowInfo,
};

/// How often to look at the console.
const PAUSE: Duration = Duration::from_millis(10);

/// A console's both sides, whatever the standard handles are.
struct Console {
    input: File,
    output: File,
}

impl Console {
    fn open() -> Result<Self> {
        let open = |name: &str| {
            let file = File::options().read(true).write(true).open(name);
            file.with_context(|| format!("open {name}"))
        };
        Ok(Self { input: open("CONIN$")?, output: open("CONOUT$")? })
    }

    /// The modes of both, as a line.
    fn modes(&self) -> Result<String> {
        let mode = |file: &File| {
            let mut mode = 0;
            // SAFETY: the handle is open, and the mode outlives the call.
            match unsafe { GetConsoleMode(file.as_raw_handle(), &mut mode) } {
                0 => Err(io::Error::last_os_error()).context("ask for the console's mode"),
                _ => Ok(mode),
            }
        };
        Ok(format!("input {:#06x} output {:#06x}", mode(&self.input)?, mode(&self.output)?))
    }

    /// What of it is seen.
    fn window(&self) -> Result<SMALL_RECT> {
        let mut found = CONSOLE_SCREEN_BUFFER_INFO::default();
        let output = self.output.as_raw_handle();
        // SAFETY: the handle is open, and what is found has a place that outlives the call.
        match unsafe { GetConsoleScreenBufferInfo(output, &mut found) } {
            0 => Err(io::Error::last_os_error()).context("ask for the console's size"),
            _ => Ok(found.srWindow),
        }
    }
}

/// Runs a command, and writes the console's modes to a file: before, whenever they change, after.
pub fn watch(file: &Path, command: &[&str]) -> Result<()> {
    let console = Console::open()?;
    let mut record = File::create(file).context("make the record")?;
    let mut note = |what: &str| writeln!(record, "{what}").context("write the record");
    let mut modes = console.modes()?;
    note(&format!("before: {modes}"))?;
    let (program, arguments) = command.split_first().context("no command")?;
    let started = Command::new(program).args(arguments).spawn();
    let mut child = started.with_context(|| format!("run {program}"))?;
    let status = loop {
        let now = console.modes()?;
        if now != modes {
            note(&format!("during: {now}"))?;
            modes = now;
        }
        if let Some(status) = child.try_wait().context("wait for the command")? {
            break status;
        }
        std::thread::sleep(PAUSE);
    };
    note(&format!("after: {}", console.modes()?))?;
    note(&format!("code: {}", status.code().unwrap_or(-1)))
}

/// Changes the size of the console, of which it shows all.
pub fn resize(columns: i16, rows: i16) -> Result<()> {
    let console = Console::open()?;
    let output = console.output.as_raw_handle();
    let shown = console.window()?;
    let failed = |what: &str| Err(io::Error::last_os_error()).context(what.to_owned());
    // A window is never larger than its buffer: first as much of both as fits either.
    let both = SMALL_RECT {
        Left: 0,
        Top: 0,
        Right: columns.min(shown.Right - shown.Left + 1) - 1,
        Bottom: rows.min(shown.Bottom - shown.Top + 1) - 1,
    };
    let all = SMALL_RECT { Left: 0, Top: 0, Right: columns - 1, Bottom: rows - 1 };
    // SAFETY: the handle is open, and the rectangles outlive the calls.
    unsafe {
        if SetConsoleWindowInfo(output, 1, &both) == 0 {
            return failed("make the window smaller");
        }
        if SetConsoleScreenBufferSize(output, COORD { X: columns, Y: rows }) == 0 {
            return failed("change the buffer's size");
        }
        if SetConsoleWindowInfo(output, 1, &all) == 0 {
            return failed("change the window's size");
        }
    }
    Ok(())
}
