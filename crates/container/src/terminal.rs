//! A process's stdio and its terminal, which is made inside the container and whose other side is
//! sent to whoever asked.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Process;
use runhcs_compute::{Error, Result};
use rustix::fs::{FileType, OFlags, makedev};
use rustix::termios::Winsize;

use crate::error::Context;
use crate::rights;
use crate::rootfs::resolve::Root;

/// Makes a terminal from the container's own devpts, makes it the process's controlling terminal
/// and stdio, and sends the master over `console`. Returns the slave.
pub(crate) fn set_up(process: &Process, console: &OwnedFd) -> Result<OwnedFd> {
    let what = || "make a terminal in the container".to_owned();
    // Anything may be there: opening a FIFO must not block.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
    let root = Root::open(Path::new("/"))?;
    let master = root
        .open_at(Path::new("/dev/pts/ptmx"), flags)
        .or_else(|_| root.open_at(Path::new("/dev/ptmx"), flags))
        .context(what)?;
    let stat = rustix::fs::fstat(&master).context(what)?;
    let genuine = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == makedev(5, 2);
    if !genuine {
        return Err(Error::failed(what(), "the container's ptmx is not the terminal multiplexer"));
    }
    rustix::fs::fcntl_setfl(&master, OFlags::empty()).context(what)?;
    rustix::pty::unlockpt(&master).context(what)?;
    let name = rustix::pty::ptsname(&master, Vec::new()).context(what)?;
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
    Ok(slave)
}

/// Makes three descriptors the process's stdio.
pub(crate) fn install(stdio: [&OwnedFd; 3]) -> Result<()> {
    let what = || "set up stdio".to_owned();
    rustix::stdio::dup2_stdin(stdio[0]).context(what)?;
    rustix::stdio::dup2_stdout(stdio[1]).context(what)?;
    rustix::stdio::dup2_stderr(stdio[2]).context(what)
}

/// Gives stdio to the process's user, who could not open `/dev/stdout` anew otherwise if it is
/// another's pipe or file. As with runc, the null device stays as it is, which is everybody's, and
/// so does what can't be given: a file system's that is read-only, or an owner's who is not of the
/// user namespace.
pub(crate) fn give_stdio(process: &Process) {
    let user = process.user().uid();
    let null = makedev(1, 3);
    for descriptor in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(descriptor) else { continue };
        let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == null;
        if stat.st_uid != user && !is_null {
            let _ =
                rustix::fs::fchown(descriptor, Some(rustix::process::Uid::from_raw(user)), None);
        }
    }
}

/// Receives a terminal's master that the engine, or runc, sends over a console socket.
pub fn receive(console: impl AsFd) -> Result<OwnedFd> {
    let mut name = [0; 256];
    let (_, mut masters) =
        rights::receive(console, &mut name).context(|| "receive the terminal".into())?;
    masters
        .pop()
        .ok_or_else(|| Error::failed("receive the terminal", "none came over the console socket"))
}

/// One message: the slave's name as data, the master attached (runc's console socket protocol,
/// docs/terminals.md in its repository).
fn send(console: &OwnedFd, master: &OwnedFd, name: &[u8]) -> Result<()> {
    rights::send(console, name, &[master.as_fd()])
        .context(|| format!("send the terminal over console socket {}", console.as_raw_fd()))?;
    Ok(())
}
