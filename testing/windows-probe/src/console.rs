//! The console that this process shares with a command.

use std::fs::File;
use std::io::{self, Write};
use std::os::windows::io::AsRawHandle;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use windows_sys::Win32::System::Console::{
    CONSOLE_SCREEN_BUFFER_INFO, COORD, CTRL_C_EVENT, GenerateConsoleCtrlEvent, GetConsoleCP,
    GetConsoleMode, GetConsoleOutputCP, GetConsoleProcessList, GetConsoleScreenBufferInfo,
    SMALL_RECT, SetConsoleCtrlHandler, SetConsoleScreenBufferSize, SetConsoleWindowInfo,
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

    /// How both are set, as a line.
    fn settings(&self) -> Result<String> {
        let mode = |file: &File| {
            let mut mode = 0;
            // SAFETY: the handle is open, and the mode outlives the call.
            match unsafe { GetConsoleMode(file.as_raw_handle(), &mut mode) } {
                0 => Err(io::Error::last_os_error()).context("ask for the console's mode"),
                _ => Ok(mode),
            }
        };
        // SAFETY: the calls take nothing.
        let (read, shown) = unsafe { (GetConsoleCP(), GetConsoleOutputCP()) };
        Ok(format!("{} {} {read} {shown}", mode(&self.input)?, mode(&self.output)?))
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

    /// Changes its size. It shows all of its buffer.
    fn resize(&self, columns: i16, rows: i16) -> Result<()> {
        let output = self.output.as_raw_handle();
        let shown = self.window()?;
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
}

/// Does what a person does at a console.
fn follow(console: &Console, order: &str) -> Result<()> {
    let words: Vec<&str> = order.split_whitespace().collect();
    match words[..] {
        ["size", columns, rows] => console.resize(columns.parse()?, rows.parse()?),
        ["Ctrl-C"] => {
            // SAFETY: the call takes numbers only; the 0 stands for all who share the console.
            match unsafe { GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0) } {
                0 => Err(io::Error::last_os_error()).context("have Ctrl-C happen"),
                _ => Ok(()),
            }
        }
        _ => bail!("an unknown order: {order}"),
    }
}

/// Takes all events of the console that it can, which are for the command.
unsafe extern "system" fn ignore(_event: u32) -> i32 {
    1
}

/// How many processes share this process's console with it.
fn others() -> Result<u32> {
    let mut pids = [0; 64];
    // SAFETY: the place for the pids has the length that is named, and outlives the call.
    match unsafe { GetConsoleProcessList(pids.as_mut_ptr(), pids.len() as u32) } {
        0 => Err(io::Error::last_os_error()).context("ask who has the console"),
        number => Ok(number - 1),
    }
}

/// Runs a command that shares this process's console, and writes to a file how that is set: before,
/// whenever it changes, after; and how many others have the console, at the end and when it is
/// asked for. Once there is a file `order`, what it says is done at the console, and it is removed.
/// `stdio` makes the command's standard handles.
pub fn watch(record: &Path, order: &Path, command: &[&str], stdio: fn() -> Stdio) -> Result<()> {
    // SAFETY: the handler is a function, which stays; it may be called in any thread.
    unsafe { SetConsoleCtrlHandler(Some(ignore), 1) };
    let console = Console::open()?;
    let mut file = File::create(record).context("make the record")?;
    let mut note = |what: &str| writeln!(file, "{what}").context("write the record");
    let mut settings = console.settings()?;
    note(&format!("before {settings}"))?;
    let (program, arguments) = command.split_first().context("no command")?;
    let mut made = Command::new(program);
    let started = made.args(arguments).stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn();
    let mut child = started.with_context(|| format!("run {program}"))?;
    let status = loop {
        let now = console.settings()?;
        if now != settings {
            note(&format!("during {now}"))?;
            settings = now;
        }
        if let Ok(text) = std::fs::read_to_string(order) {
            match text.as_str() {
                "count" => note(&format!("others {}", others()?))?,
                text => follow(&console, text)?,
            }
            std::fs::remove_file(order).context("remove the order")?;
        }
        if let Some(status) = child.try_wait().context("wait for the command")? {
            break status;
        }
        std::thread::sleep(PAUSE);
    };
    note(&format!("after {}", console.settings()?))?;
    note(&format!("others {}", others()?))?;
    note(&format!("code {}", status.code().unwrap_or(-1)))
}
