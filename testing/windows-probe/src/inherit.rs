//! Handles that every process inherits which doesn't say what it wants: the writing end of a pipe,
//! and a file that nobody else may open meanwhile.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::{AsRawHandle, RawHandle};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use windows_sys::Win32::Foundation::{
    ERROR_SHARING_VIOLATION, HANDLE_FLAG_INHERIT, SetHandleInformation,
};

/// How long to wait until nobody has a handle any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Says first, by a process of its own that takes all and stays, what is seen if a handle is passed
/// on, then who has the handles once `command` has ended with success.
pub fn run(file: &Path, command: &[&str]) -> Result<()> {
    let control = Handles::make(file)?;
    // It waits for the end of its standard input.
    let mut taker = Command::new("cmd")
        .args(["/c", "set /p line="])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("start a process that inherits all")?;
    println!("with an heir: {}", control.close(file)?);
    drop(taker.stdin.take());
    taker.wait().context("wait for the process that inherits all")?;

    let handles = Handles::make(file)?;
    let (program, arguments) = command.split_first().context("no command")?;
    let status =
        Command::new(program).args(arguments).status().with_context(|| format!("run {program}"))?;
    println!("{}", handles.close(file)?);
    anyhow::ensure!(status.success(), "{program}: {status}");
    Ok(())
}

struct Handles {
    pipe: PipeReader,
    writer: io::PipeWriter,
    locked: File,
}

impl Handles {
    fn make(file: &Path) -> Result<Self> {
        let (pipe, writer) = io::pipe().context("make a pipe")?;
        let locked = open(file).context("open the file")?;
        for handle in [writer.as_raw_handle(), locked.as_raw_handle()] {
            bequeath(handle).context("make a handle inheritable")?;
        }
        Ok(Self { pipe, writer, locked })
    }

    /// Closes this process's own, and says whether somebody else has them.
    fn close(self, file: &Path) -> Result<String> {
        let Self { mut pipe, writer, locked } = self;
        drop((writer, locked));
        let (sender, ended) = channel();
        thread::spawn(move || {
            let _ = sender.send(pipe.read(&mut [0]));
        });
        let pipe = match ended.recv_timeout(PATIENCE) {
            Ok(Ok(0)) => "closed",
            Ok(other) => anyhow::bail!("the pipe: {other:?}"),
            Err(_) => "held",
        };
        let file = match open(file) {
            Ok(_) => "closed",
            Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION.cast_signed()) => {
                "held"
            }
            Err(error) => return Err(error).context("open the file again"),
        };
        Ok(format!("pipe {pipe}, file {file}"))
    }
}

/// Opens a file for this process alone.
fn open(file: &Path) -> io::Result<File> {
    File::options().write(true).create(true).share_mode(0).open(file)
}

fn bequeath(handle: RawHandle) -> io::Result<()> {
    // SAFETY: the handle is open.
    match unsafe { SetHandleInformation(handle, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
