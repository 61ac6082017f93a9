//! A process's terminal: made inside the container, its other side sent to whoever asked.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::Process;
use runhcs_compute::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::termios::Winsize;

use crate::error::Context;
use crate::rights;

/// Makes a terminal from the container's own devpts, makes it the process's controlling terminal
/// and stdio, and sends the master over `console`. Returns the slave's path in the container.
pub(crate) fn set_up(process: &Process, console: &OwnedFd) -> Result<PathBuf> {
    let what = || "make a terminal in the container".to_owned();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())
        .or_else(|_| rustix::fs::open("/dev/ptmx", flags, Mode::empty()))
        .context(what)?;
    rustix::pty::unlockpt(&master).context(what)?;
    let name = rustix::pty::ptsname(&master, Vec::new()).context(what)?;
    let path = PathBuf::from(String::from_utf8_lossy(name.to_bytes()).into_owned());
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY,
    )
    .context(what)?;
    if let Some(size) = process.console_size().as_ref() {
        let cells = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        let size = Winsize {
            ws_row: cells(size.height()),
            ws_col: cells(size.width()),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&master, size).context(what)?;
    }
    let user = rustix::process::Uid::from_raw(process.user().uid());
    let _ = rustix::fs::fchown(&slave, Some(user), None);
    send(console, &master, name.to_bytes())?;
    rustix::process::ioctl_tiocsctty(&slave).context(|| "take the controlling terminal".into())?;
    install([&slave, &slave, &slave])?;
    Ok(path)
}

/// Makes three descriptors the process's stdio.
pub(crate) fn install(stdio: [&OwnedFd; 3]) -> Result<()> {
    let what = || "set up stdio".to_owned();
    rustix::stdio::dup2_stdin(stdio[0]).context(what)?;
    rustix::stdio::dup2_stdout(stdio[1]).context(what)?;
    rustix::stdio::dup2_stderr(stdio[2]).context(what)
}

/// Receives a terminal's master that the engine, or runc, sends over a console socket.
pub fn receive(console: impl AsFd) -> Result<OwnedFd> {
    let mut name = [0; 256];
    let (_, master) =
        rights::receive(console, &mut name).context(|| "receive the terminal".into())?;
    master.ok_or_else(|| Error::failed("receive the terminal", "none came over the console socket"))
}

/// One message: the slave's name as data, the master attached (runc's console socket protocol,
/// docs/terminals.md in its repository).
fn send(console: &OwnedFd, master: &OwnedFd, name: &[u8]) -> Result<()> {
    rights::send(console, name, master)
        .context(|| format!("send the terminal over console socket {}", console.as_raw_fd()))?;
    Ok(())
}
