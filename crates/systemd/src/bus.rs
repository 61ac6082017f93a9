//! A connection to a message bus or directly to a manager (specification, "Authentication
//! Protocol").

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::message::{self, Call, Kind, Message};
use crate::{Error, Result};

/// How long an answer may take. systemd's own jobs have 90 s, but a scope's have nothing to wait
/// for.
const DEADLINE: Duration = Duration::from_secs(30);

/// The most that a line of the authentication may hold, in bytes.
const MAX_LINE: usize = 16 << 10;

/// A socket that may lead to the manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub path: PathBuf,
    /// Whether the manager itself is behind it, and no bus.
    pub direct: bool,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    address: Address,
    serial: u32,
    /// Signals that came while something else was waited for.
    signals: VecDeque<Message>,
}

impl Bus {
    /// Connects to the first address where somebody listens.
    pub(crate) fn connect(addresses: &[Address]) -> Result<Self> {
        for address in addresses {
            let Ok(stream) = UnixStream::connect(&address.path) else { continue };
            let mut bus =
                Self { stream, address: address.clone(), serial: 0, signals: VecDeque::new() };
            bus.authenticate()?;
            if !address.direct {
                bus.call(&Call {
                    destination: "org.freedesktop.DBus",
                    path: "/org/freedesktop/DBus",
                    interface: "org.freedesktop.DBus",
                    member: "Hello",
                    signature: "",
                    body: Vec::new(),
                })?;
            }
            return Ok(bus);
        }
        Err(Error::NoManager(addresses.iter().map(|address| address.path.clone()).collect()))
    }

    /// Whether the manager itself is on the other side.
    pub(crate) fn is_direct(&self) -> bool {
        self.address.direct
    }

    fn io<T>(&self, outcome: io::Result<T>) -> Result<T> {
        outcome.map_err(|source| Error::Io { path: self.address.path.clone(), source })
    }

    /// As the user that the kernel says is on this side. No id is sent along: in a user namespace
    /// it would be another than the one that the other side sees.
    ///
    /// All is sent at once, as sd-bus does it: systemd's own socket leaves a message lying that
    /// arrives together with the last line, until something else arrives.
    fn authenticate(&mut self) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let mut answer = self.line(deadline)?;
        if answer.starts_with("DATA") {
            answer = self.line(deadline)?;
        }
        if !answer.starts_with("OK ") {
            return Err(Error::Protocol(format!("this user is not let in: {answer:?}")));
        }
        Ok(())
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > MAX_LINE {
                return Err(Error::Protocol("a line of the authentication has no end".into()));
            }
            let mut byte = [0];
            self.receive(&mut byte, deadline)?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let set = self.stream.set_write_timeout(Some(DEADLINE));
        self.io(set)?;
        let sent = self.stream.write_all(bytes);
        self.io(sent)
    }

    fn receive(&mut self, mut buffer: &mut [u8], deadline: Instant) -> Result<()> {
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.io(Err(io::ErrorKind::TimedOut.into()));
            }
            let set = self.stream.set_read_timeout(Some(left));
            self.io(set)?;
            match self.stream.read(buffer) {
                Ok(0) => return self.io(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What a socket's timeout is reported as.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.io(Err(io::ErrorKind::TimedOut.into()));
                }
                Err(error) => return self.io(Err(error)),
            }
        }
        Ok(())
    }

    fn next(&mut self, deadline: Instant) -> Result<Message> {
        let mut fixed = [0; message::FIXED];
        self.receive(&mut fixed, deadline)?;
        let mut bytes = fixed.to_vec();
        bytes.resize(message::FIXED + message::rest(&fixed)?, 0);
        self.receive(&mut bytes[message::FIXED..], deadline)?;
        Message::decode(&bytes)
    }

    /// Calls a method and waits for the reply.
    pub(crate) fn call(&mut self, call: &Call) -> Result<Message> {
        let deadline = Instant::now() + DEADLINE;
        self.serial += 1;
        let message = call.encode(self.serial, self.address.direct);
        self.send(&message)?;
        loop {
            let message = self.next(deadline)?;
            match &message.kind {
                Kind::Reply { to } if *to == self.serial => return Ok(message),
                Kind::Error { to, name } if *to == self.serial => {
                    // What it says is optional.
                    let text = message.body("s").and_then(|mut body| body.string());
                    return Err(Error::Refused {
                        method: call.member,
                        name: name.clone(),
                        message: text.unwrap_or_default(),
                    });
                }
                Kind::Signal { .. } => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Waits for the signal `member` for which `wanted` has something.
    pub(crate) fn signal<T>(
        &mut self,
        member: &str,
        mut wanted: impl FnMut(&Message) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.next(deadline)?,
            };
            if message.kind == (Kind::Signal { member: member.to_owned() })
                && let Some(found) = wanted(&message)?
            {
                return Ok(found);
            }
        }
    }
}

/// The socket of an address of a bus such as `unix:path=/run/dbus/system_bus_socket`; of several
/// addresses the first that names a path.
pub(crate) fn socket(address: &str) -> Option<PathBuf> {
    let paths = address.split(';').filter_map(|one| {
        let parameters = one.strip_prefix("unix:")?;
        parameters.split(',').find_map(|parameter| parameter.strip_prefix("path="))
    });
    paths.map(|path| Path::new(path).to_owned()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_buses() {
        let path = |address: &str| socket(address).map(|path| path.display().to_string());
        assert_eq!(path("unix:path=/run/bus,guid=5"), Some("/run/bus".into()));
        assert_eq!(path("tcp:host=x;unix:abstract=/a;unix:path=/b"), Some("/b".into()));
        assert_eq!(path("unix:abstract=/a"), None);
        assert_eq!(path(""), None);
    }
}
