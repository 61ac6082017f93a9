//! `--pidfd-socket`: gives a caller the container's process as a descriptor, which can't come to mean
//! another process as a pid can (pidfd_open(2)). Of a container in a VM it is the container shim,
//! whose pid the pid file has, too.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A connection to whoever wants the process.
#[derive(Debug)]
pub struct PidfdSocket {
    socket: OwnedFd,
    path: PathBuf,
}

impl PidfdSocket {
    /// Connects, before there is a process that would have to be undone.
    pub fn connect(path: &Path) -> Result<Self> {
        let socket = std::os::unix::net::UnixStream::connect(path);
        let socket =
            socket.with_context(|| format!("connect to --pidfd-socket {}", path.display()))?;
        Ok(Self { socket: socket.into(), path: path.to_owned() })
    }

    /// Sends the process, which must be a child of the caller's that wasn't waited for.
    pub fn send(self, pid: u32) -> Result<()> {
        let process = Pid::from_raw(pid as i32).context("there is no process 0")?;
        let pidfd = pidfd_open(process, PidfdFlags::empty())
            .with_context(|| format!("open process {pid}"))?;
        send_descriptor(&self.socket, b"pidfd", &pidfd)
            .with_context(|| format!("send the process to {}", self.path.display()))
    }
}

/// Sends a descriptor with some data.
pub fn send_descriptor(
    socket: impl AsFd,
    data: &[u8],
    descriptor: impl AsFd,
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(data)], &mut control, SendFlags::NOSIGNAL).map(drop)
}
