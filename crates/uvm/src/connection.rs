//! One conversation with a VM shim, with a deadline.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use runhcs_protocol::frame::{self, FrameError};
use runhcs_protocol::shim::{Reply, Request, VmEnd};
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::{deadline, files};

/// The most trees one request can carry (`SCM_MAX_FD`, unix(7)).
pub const MAX_DESCRIPTORS: usize = 253;
/// The descriptors of an answer: at most three streams.
const STREAMS: usize = 3;

/// Why a conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// No shim serves the directory.
    #[error("the VM shim is not running")]
    NoShim,
    /// The VM has ended, as the shim says.
    #[error("{0}")]
    VmEnded(VmEnd),
    /// There was no answer in time.
    #[error("the VM shim didn't answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The connection failed.
    #[error(transparent)]
    Frame(FrameError),
}

/// A connection on which a request was answered.
pub struct Answered {
    /// The answer.
    pub reply: Reply,
    /// What came with it.
    pub descriptors: Vec<OwnedFd>,
    /// For what follows.
    pub stream: UnixStream,
}

/// Asks the shim that serves `dir`.
pub fn ask(
    dir: &Path,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> Result<Answered, Failed> {
    let allowed = deadline::of_shim(request);
    let stream = connect(dir)?;
    let mut timed = Timed { stream, until: Instant::now() + allowed, descriptors: Vec::new() };
    match timed.converse(request, descriptors) {
        Ok(Reply::VmEnded(end)) => Err(Failed::VmEnded(end)),
        Ok(reply) => {
            let Timed { stream, descriptors, .. } = timed;
            let unlimited = stream.set_read_timeout(None);
            unlimited.and_then(|()| stream.set_write_timeout(None)).map_err(io_error)?;
            Ok(Answered { reply, descriptors, stream })
        }
        Err(FrameError::Io(error)) if is_timeout(&error) => Err(Failed::Timeout(allowed)),
        // It ended with the question unanswered.
        Err(FrameError::Truncated) => Err(Failed::NoShim),
        Err(FrameError::Io(error)) if is_disconnect(&error) => Err(Failed::NoShim),
        Err(error) => Err(Failed::Frame(error)),
    }
}

fn connect(dir: &Path) -> Result<UnixStream, Failed> {
    // Through a descriptor, because a socket's own path must be short (sockaddr_un, unix(7)).
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(dir, flags, Mode::empty()).map_err(io::Error::from);
    opened
        .and_then(|dir| {
            UnixStream::connect(format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), files::SOCKET))
        })
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failed::NoShim,
            _ => io_error(error),
        })
}

fn io_error(error: io::Error) -> Failed {
    Failed::Frame(FrameError::Io(error))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn is_disconnect(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// A stream on which everything together has to be done by a point in time.
struct Timed {
    stream: UnixStream,
    until: Instant,
    descriptors: Vec<OwnedFd>,
}

impl Timed {
    fn converse(
        &mut self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Reply, FrameError> {
        let message = frame::encode(request)?;
        let sent = self.send_with(&message, descriptors)?;
        self.write_all(&message[sent..])?;
        frame::read(self, frame::MAX_REQUEST)?.ok_or(FrameError::Truncated)
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }

    fn send_with(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        let size = SendAncillaryMessage::ScmRights(descriptors).size();
        let mut space = vec![MaybeUninit::uninit(); size];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        Ok(rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                &self.stream,
                &[IoSlice::new(message)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )
        })?)
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = rustix::net::recvmsg(
            self.stream.as_fd(),
            &mut [IoSliceMut::new(buffer)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                self.descriptors.extend(received);
            }
        }
        Ok(message.bytes)
    }
}

impl Write for Timed {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        Ok(rustix::net::send(&self.stream, data, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
