//! Copying one direction of a stream between a local descriptor and the guest, without ever
//! waiting for either.
//!
//! Towards the guest, what is read locally goes out as chunks; the other way, chunks are taken
//! apart. Each holds one buffer, and reads only when that is empty: that is the back-pressure.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runhcs_protocol::stream::{LAST_WORDS, MAX_CHUNK};
use rustix::event::PollFlags;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// What one turn copies at most, in bytes.
const BUFFER: usize = 32 << 10;
/// What a pipe takes at once when poll(2) says that it takes anything (pipe(7)).
const ATOMIC: usize = 4096;

const _: () = assert!(BUFFER <= MAX_CHUNK);

/// A local descriptor, used without blocking and without changing its file description, which
/// other processes may share.
#[derive(Debug)]
pub enum Local<'a> {
    /// The caller's. A socket, or something that must be polled first and used in small pieces.
    Borrowed { fd: BorrowedFd<'a>, socket: bool },
    /// The same pipe or terminal, opened again for ourselves and non-blocking.
    Own(OwnedFd),
}

impl<'a> Local<'a> {
    /// Takes a descriptor to read from or, if `write`, to write to.
    pub fn new(fd: BorrowedFd<'a>, write: bool) -> io::Result<Self> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
        if matches!(kind, FileType::Fifo | FileType::CharacterDevice) {
            let access = if write { OFlags::WRONLY } else { OFlags::RDONLY };
            let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
            // It may belong to another user; then the slower way has to do.
            if let Ok(own) = rustix::fs::open(path, flags, Mode::empty()) {
                return Ok(Self::Own(own));
            }
        }
        Ok(Self::Borrowed { fd, socket: kind == FileType::Socket })
    }

    /// The caller's descriptor, if it is that which is used.
    pub fn borrowed(&self) -> Option<BorrowedFd<'a>> {
        match self {
            Self::Borrowed { fd, .. } => Some(*fd),
            Self::Own(_) => None,
        }
    }

    fn read(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Own(fd) => rustix::io::read(fd, buffer),
            Self::Borrowed { fd, socket: true } => {
                rustix::net::recv(fd, buffer, RecvFlags::DONTWAIT).map(|(length, _)| length)
            }
            Self::Borrowed { fd, socket: false } => rustix::io::read(fd, buffer),
        }
    }

    fn write(&self, data: &[u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Own(fd) => rustix::io::write(fd, data),
            Self::Borrowed { fd, socket: true } => {
                rustix::net::send(fd, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            }
            Self::Borrowed { fd, socket: false } => {
                rustix::io::write(fd, &data[..data.len().min(ATOMIC)])
            }
        }
    }
}

impl AsFd for Local<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Borrowed { fd, .. } => *fd,
            Self::Own(fd) => fd.as_fd(),
        }
    }
}

/// What a pump waits for.
pub type Wait<'a> = (BorrowedFd<'a>, PollFlags);

/// Local → guest.
#[derive(Debug)]
pub struct Inbound<'a> {
    local: Local<'a>,
    buffer: Vec<u8>,
    written: usize,
    state: InState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InState {
    Copying,
    /// The local end is reached; the end chunk is in the buffer.
    Ending,
    Done,
}

impl<'a> Inbound<'a> {
    /// Nothing copied yet.
    pub fn new(local: Local<'a>) -> Self {
        Self { local, buffer: Vec::new(), written: 0, state: InState::Copying }
    }

    /// Where to look before the next [`Self::turn`]; `None` if it is finished.
    pub fn wait<'b>(&'b self, guest: BorrowedFd<'b>) -> Option<Wait<'b>> {
        match self.state {
            InState::Done => None,
            _ if self.written < self.buffer.len() => Some((guest, PollFlags::OUT)),
            _ => Some((self.local.as_fd(), PollFlags::IN)),
        }
    }

    /// Copies what can be copied now. To be called only if what it waits for has happened.
    pub fn turn(&mut self, guest: BorrowedFd<'_>) {
        if self.state == InState::Copying && self.written == self.buffer.len() {
            self.read();
        }
        while self.written < self.buffer.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(guest, &self.buffer[self.written..], flags) {
                Ok(written) => self.written += written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The process has closed its input, or is gone: it reads no more.
                Err(_) => {
                    self.state = InState::Done;
                    return;
                }
            }
        }
        if self.state == InState::Ending {
            self.state = InState::Done;
        }
    }

    fn read(&mut self) {
        self.buffer.resize(2 + BUFFER, 0);
        let result = rustix::io::retry_on_intr(|| self.local.read(&mut self.buffer[2..]));
        self.written = 0;
        match result {
            Err(Errno::AGAIN) => self.buffer.clear(),
            // A terminal that has hung up says so with an error; it is an end like any other.
            Ok(0) | Err(_) => {
                self.state = InState::Ending;
                self.buffer.clear();
                self.buffer.extend([0, 0]);
            }
            Ok(length) => {
                self.buffer.truncate(2 + length);
                self.buffer[..2].copy_from_slice(&(length as u16).to_be_bytes());
            }
        }
    }
}

/// Guest → local.
#[derive(Debug)]
pub struct Outbound<'a> {
    local: Local<'a>,
    /// As received: headers and data.
    buffer: Vec<u8>,
    /// How much of the buffer is dealt with.
    used: usize,
    /// What is left of the present chunk, in bytes.
    chunk: usize,
    state: OutState,
    /// Whether all has come that the process itself wrote.
    complete: bool,
}

/// How far a stream from the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutState {
    /// It goes on.
    Copying,
    /// The process closed it, and all is written.
    Ended,
    /// The connection ended without that.
    Cut,
    /// Nobody reads it here any more.
    Unwanted,
}

impl<'a> Outbound<'a> {
    /// Nothing copied yet.
    pub fn new(local: Local<'a>) -> Self {
        Self {
            local,
            buffer: Vec::new(),
            used: 0,
            chunk: 0,
            state: OutState::Copying,
            complete: false,
        }
    }

    /// The caller's descriptor, if it is that which is written to.
    pub fn borrowed(&self) -> Option<BorrowedFd<'a>> {
        self.local.borrowed()
    }

    /// Whether all is written that the process itself wrote. More may come from others.
    pub fn is_complete(&self) -> bool {
        self.complete || self.state != OutState::Copying
    }

    /// How far it is.
    pub fn state(&self) -> OutState {
        self.state
    }

    /// Where to look before the next [`Self::turn`]; `None` if it is finished.
    pub fn wait<'b>(&'b self, guest: BorrowedFd<'b>) -> Option<Wait<'b>> {
        match self.state {
            OutState::Copying if self.has_data() => Some((self.local.as_fd(), PollFlags::OUT)),
            OutState::Copying => Some((guest, PollFlags::IN)),
            _ => None,
        }
    }

    /// Copies what can be copied now. To be called only if what it waits for has happened.
    pub fn turn(&mut self, guest: BorrowedFd<'_>) {
        if !self.has_data() {
            self.read(guest);
        }
        self.parse();
        if self.has_data() {
            let available = self.chunk.min(self.buffer.len() - self.used);
            let data = &self.buffer[self.used..self.used + available];
            match self.local.write(data) {
                Ok(written) => {
                    self.used += written;
                    self.chunk -= written;
                    self.parse();
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.state = OutState::Unwanted,
            }
        }
    }

    /// Whether there is something to be written.
    fn has_data(&self) -> bool {
        self.state == OutState::Copying && self.chunk > 0 && self.used < self.buffer.len()
    }

    fn read(&mut self, guest: BorrowedFd<'_>) {
        self.buffer.drain(..self.used);
        self.used = 0;
        let kept = self.buffer.len();
        self.buffer.resize(kept + BUFFER, 0);
        let result = rustix::io::retry_on_intr(|| {
            rustix::net::recv(guest, &mut self.buffer[kept..], RecvFlags::DONTWAIT)
        });
        self.buffer.truncate(kept + result.map_or(0, |(_, length)| length));
        match result {
            Ok((_, 1..)) | Err(Errno::AGAIN) => {}
            Ok((_, 0)) | Err(_) => self.state = OutState::Cut,
        }
    }

    /// Begins the next chunk if the present one is used up.
    fn parse(&mut self) {
        while self.state == OutState::Copying && self.chunk == 0 {
            let Some(header) = self.buffer[self.used..].first_chunk::<2>() else { return };
            self.used += 2;
            let length = u16::from_be_bytes(*header);
            if length == LAST_WORDS {
                self.complete = true;
                continue;
            }
            self.chunk = usize::from(length);
            if self.chunk == 0 {
                self.state = OutState::Ended;
            }
        }
    }
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
