//! Sockets between the shim, QEMU and its devices. None has a name that outlives the boot.

use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};

/// Two connected sockets.
pub fn pair() -> anyhow::Result<(UnixStream, UnixStream)> {
    UnixStream::pair().context("cannot make a pair of sockets")
}

/// A listening socket at `path` with one connection, which is the second result. The path is gone
/// again when this returns.
pub fn waiting_connection(path: &Path) -> anyhow::Result<(UnixListener, UnixStream)> {
    let context = || format!("cannot make the socket {}", path.display());
    // A socket's address holds 107 bytes (unix(7)); a path can be longer.
    let parent = path.parent().with_context(context)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::open(parent, flags, Mode::empty()).with_context(context)?;
    let name = path.file_name().with_context(context)?;
    let short = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
    let listener = UnixListener::bind(&short).with_context(context)?;
    let connection = UnixStream::connect(&short).with_context(context)?;
    std::fs::remove_file(path).with_context(context)?;
    Ok((listener, connection))
}
