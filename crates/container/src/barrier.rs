//! Where a created container's init waits for `start`: a FIFO in the container's directory.
//!
//! Init opens it for writing, which blocks until `start` opens it for reading. The descriptor
//! closes when the program is executed, so `start` reads either nothing (executed) or why it
//! couldn't be.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use runhcs_compute::{Error, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::Context;
use crate::proc::OwnDescriptors;

fn path(directory: &Path) -> PathBuf {
    directory.join("exec.fifo")
}

/// Makes the FIFO. The descriptor refers to it without opening it, so it can be handed on into
/// the container's mount namespace.
pub(crate) fn make(directory: &Path) -> Result<OwnedFd> {
    let path = path(directory);
    let what = || format!("make {}", path.display());
    match rustix::fs::mkfifoat(CWD, &path, Mode::from_raw_mode(0o600)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).context(what),
    }
    // Init opens it after it has become the container's user. The directory is private, so only
    // who holds this descriptor gets at it.
    rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(0o622), AtFlags::empty()).context(what)?;
    rustix::fs::open(&path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .context(what)
}

/// Removes the FIFO, if it is there.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    let path = path(directory);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whether the container still waits.
pub(crate) fn is_waiting(directory: &Path) -> bool {
    path(directory).exists()
}

/// Init's side: blocks until `start`. Closes when a program is executed.
pub(crate) fn wait(fifo: &OwnedFd, own: &OwnDescriptors) -> Result<OwnedFd> {
    loop {
        match own.reopen(fifo, OFlags::WRONLY) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other.context(|| "wait for start".into()),
        }
    }
}

/// Init's side: says why the program wasn't executed.
pub(crate) fn report(line: OwnedFd, error: &Error) {
    let _ = std::fs::File::from(line).write_all(crate::error::chain(error).as_bytes());
}

/// The starting side: lets init, which `pidfd` refers to, go and waits until its program is
/// executed. A short program may have ended by then.
pub(crate) fn release(directory: &Path, pidfd: &OwnedFd) -> Result<()> {
    let path = path(directory);
    let what = || format!("open {}", path.display());
    // Without O_NONBLOCK this would hang if init had died meanwhile.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let reader = rustix::fs::open(&path, flags, Mode::empty()).context(what)?;
    rustix::fs::fcntl_setfl(&reader, OFlags::empty()).context(what)?;
    // Init's open(2) completes once it is scheduled; until then a read would see no writer and
    // return end of file. Poll reports nothing until a writer has come (and HUP when it has gone).
    loop {
        let mut fds = [
            rustix::event::PollFd::new(&reader, rustix::event::PollFlags::IN),
            rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error).context(what),
        }
        if !fds[0].revents().is_empty() {
            break;
        }
        if !fds[1].revents().is_empty() {
            return Err(Error::failed("start the container", "its init process has ended"));
        }
    }
    let mut text = String::new();
    std::fs::File::from(reader).take(64 << 10).read_to_string(&mut text).context(what)?;
    if text.is_empty() { Ok(()) } else { Err(Error::failed("start the container", text)) }
}
