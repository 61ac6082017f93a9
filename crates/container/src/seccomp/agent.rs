//! The seccomp agent: a program that decides, call by call, about what a filter leaves to it. It is
//! told of a process by a message with the listener's descriptor (runtime specification,
//! config-linux.md, "The Container Process State").

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use runhcs_compute::{Result, Status};
use rustix::pipe::PipeFlags;

use crate::channel::Channel;
use crate::error::Context;
use crate::hooks::HookSubject;
use crate::rights;

/// Where an agent listens, and what it is told in addition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    path: PathBuf,
    metadata: Option<String>,
}

/// Whose calls the agent is to decide about.
#[derive(Debug)]
pub(crate) struct Watched<'a> {
    pub subject: &'a HookSubject,
    pub status: Status,
    /// The container's first process.
    pub init: u32,
    /// The process with the filter.
    pub pid: u32,
}

impl Agent {
    pub(super) fn new(path: &Path, metadata: Option<String>) -> Self {
        Self { path: path.to_owned(), metadata }
    }

    /// The creating process's part: receives the listener, passes it to the agent and lets the
    /// process go on.
    pub(crate) fn introduce(&self, channel: &mut Channel, watched: &Watched<'_>) -> Result<()> {
        let listener = channel.descriptor()?;
        self.tell(&listener, watched).context(|| {
            format!("linux.seccomp.listenerPath: tell the agent at {}", self.path.display())
        })?;
        channel.go(0)
    }

    fn tell(&self, listener: &OwnedFd, watched: &Watched<'_>) -> io::Result<()> {
        let state = watched.subject.state(watched.status, Some(watched.init));
        let mut message = serde_json::json!({
            "ociVersion": state["ociVersion"],
            "fds": ["seccompFd"],
            "pid": watched.pid,
            "state": state,
        });
        if let Some(metadata) = &self.metadata {
            message["metadata"] = metadata.as_str().into();
        }
        let message = message.to_string();
        let mut stream = UnixStream::connect(&self.path)?;
        let sent = rights::send(&stream, message.as_bytes(), &[listener.as_fd()])?;
        stream.write_all(&message.as_bytes()[sent..])
    }
}

/// Passes a listener's descriptor to the creating process from a thread that the filter doesn't
/// apply to, so that the filter may ask the agent about any call but the write(2) by which the
/// thread is told.
pub(super) struct Handover {
    line: OwnedFd,
}

impl Handover {
    /// Starts the thread; to be called before the filter is installed.
    pub(super) fn begin(channel: &Channel) -> io::Result<Self> {
        let (reader, line) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let mut channel = channel.try_clone()?;
        std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
            let mut number = [0; 4];
            // Nothing comes if the filter couldn't be installed.
            if rustix::io::read(&reader, &mut number) == Ok(number.len()) {
                // SAFETY: the thread that installed the filter keeps the listener open until the
                // creating process has answered this message.
                let listener = unsafe { BorrowedFd::borrow_raw(i32::from_ne_bytes(number)) };
                let _ = channel.send_descriptor(listener);
            }
        })?;
        Ok(Self { line })
    }

    /// Has the thread pass the listener on.
    pub(super) fn finish(self, listener: &OwnedFd) -> io::Result<()> {
        rustix::io::write(&self.line, &listener.as_raw_fd().to_ne_bytes())?;
        Ok(())
    }
}
