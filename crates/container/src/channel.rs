//! The line between the creating process and the container's init while it is being set up.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use runhcs_compute::{Error, Result};

use crate::error::{Context, chain};
use crate::rights;

/// What one side tells the other: one byte of kind, and for a failure its text to the end.
const GO: u8 = b'g';
const FAILED: u8 = b'f';
/// With descriptors.
const TAKE: u8 = b't';

const NO_WORD: &str = "its process ended without a word";

/// One end of the line.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Channel {
    pub(crate) fn pair() -> Result<(Self, Self)> {
        let (a, b) = UnixStream::pair().context(|| "make a socket pair".into())?;
        Ok((Self(a), Self(b)))
    }

    /// Lets the other side go on, with a number for it.
    pub(crate) fn go(&mut self, number: u32) -> Result<()> {
        let [a, b, c, d] = number.to_ne_bytes();
        let told = self.0.write_all(&[GO, a, b, c, d]);
        self.or_its_failure(told).context(|| "tell the other side to go on".into())
    }

    /// If the other side has gone, why it has is a better error than that it has.
    fn or_its_failure(&mut self, sent: io::Result<()>) -> io::Result<()> {
        match sent {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => match self.next() {
                Err(failure) => Err(io::Error::other(chain(&failure))),
                Ok(_) => Err(error),
            },
            sent => sent,
        }
    }

    /// Ends the line with a failure's text. Nobody may be left to hear it.
    pub(crate) fn fail(&mut self, error: &Error) {
        let mut message = vec![FAILED];
        message.extend_from_slice(chain(error).as_bytes());
        let _ = self.0.write_all(&message);
    }

    /// Waits until the other side goes on and returns its number; its failure is this call's error.
    pub(crate) fn wait(&mut self) -> Result<u32> {
        self.next()?.ok_or_else(|| failed(NO_WORD))
    }

    /// Waits until the other side has closed its end by executing a program.
    pub(crate) fn wait_closed(&mut self) -> Result<()> {
        self.next().map(drop)
    }

    /// Another handle of the same end.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Gives the other side a descriptor.
    pub(crate) fn send_descriptor(&mut self, descriptor: impl AsFd) -> io::Result<()> {
        self.send_descriptors(&[descriptor.as_fd()])
    }

    /// Gives the other side descriptors, [`rights::MOST`] at most.
    pub(crate) fn send_descriptors(&mut self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let sent = rights::send(&self.0, &[TAKE], descriptors);
        self.or_its_failure(sent.map(drop).map_err(io::Error::from))
    }

    /// Waits for the descriptor that the other side is about to give.
    pub(crate) fn descriptor(&mut self) -> Result<OwnedFd> {
        self.descriptors(1)?.pop().ok_or_else(|| failed(NO_WORD))
    }

    /// Waits for the descriptors, so many, that the other side is about to give at once.
    pub(crate) fn descriptors(&mut self, count: usize) -> Result<Vec<OwnedFd>> {
        let mut kind = [0];
        match rights::receive(&self.0, &mut kind).context(hear)? {
            (0, _) => Err(failed(NO_WORD)),
            (_, descriptors) if kind[0] == TAKE && descriptors.len() == count => Ok(descriptors),
            (_, descriptors) if kind[0] == TAKE => {
                Err(failed(format!("it gave {} descriptors instead of {count}", descriptors.len())))
            }
            _ => Err(self.failure()),
        }
    }

    fn next(&mut self) -> Result<Option<u32>> {
        let mut kind = [0];
        if self.0.read(&mut kind).context(hear)? == 0 {
            return Ok(None);
        }
        if kind[0] == GO {
            let mut number = [0; 4];
            self.0.read_exact(&mut number).context(hear)?;
            return Ok(Some(u32::from_ne_bytes(number)));
        }
        Err(self.failure())
    }

    /// The other side's failure, whose kind has been read.
    fn failure(&self) -> Error {
        let mut text = String::new();
        let _ = (&self.0).take(64 << 10).read_to_string(&mut text);
        failed(text)
    }
}

fn hear() -> String {
    "hear from the container's process".into()
}

fn failed(why: impl Into<String>) -> Error {
    Error::failed("set up the container's process", why.into())
}
