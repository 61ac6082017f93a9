//! Sockets between the shim, QEMU and its devices. None has a name that outlives the boot.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::Context;

/// Two connected sockets.
pub fn pair() -> anyhow::Result<(UnixStream, UnixStream)> {
    UnixStream::pair().context("cannot make a pair of sockets")
}

/// A listening socket at `path` with one connection, which is the second result. The path is gone
/// again when this returns.
pub fn waiting_connection(path: &Path) -> anyhow::Result<(UnixListener, UnixStream)> {
    let context = || format!("cannot make the socket {}", path.display());
    let listener = UnixListener::bind(path).with_context(context)?;
    let connection = UnixStream::connect(path).with_context(context)?;
    std::fs::remove_file(path).with_context(context)?;
    Ok((listener, connection))
}
