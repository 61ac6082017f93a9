//! One vsock stream: what the guest has been told and has said, and the host socket behind it.
//!
//! Both directions are bounded. The guest may have [`BUFFER`] bytes on their way to a host socket
//! that isn't read, and not one more; what comes from the host is only read from its socket when
//! the guest has room for it. A direction that ends is ended on the other side once all of its
//! data has arrived there, and the other direction goes on.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::packet::{Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// What the guest may have sent without the host having read it, per connection, in bytes.
pub const BUFFER: u32 = 256 << 10;

/// The guest is told about room in the buffer when this much has come free since it last heard.
const UPDATE_AT: u32 = BUFFER / 4;

/// The part of a packet that the connection decides; addresses are the multiplexer's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What the packet is for.
    pub op: Op,
    /// For [`Op::Shutdown`].
    pub flags: u32,
    /// Bytes of payload, for [`Op::Data`].
    pub len: usize,
    /// See [`super::packet::Header::fwd_cnt`].
    pub fwd_cnt: u32,
}

/// What is left to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Alive,
    /// Forget it; the guest knows.
    Finished,
    /// Forget it and tell the guest with a reset.
    Reset,
}

/// A stream between a port of the guest and a socket of the host.
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    established: bool,
    /// A request, a response or a reply to a credit request, to be sent before anything else.
    control: Option<Op>,

    /// Data from the guest that the socket hasn't taken yet.
    backlog: VecDeque<u8>,
    /// How much of the guest's data the socket has taken, modulo 2³², and what the guest knows.
    forwarded: u32,
    forwarded_told: u32,
    /// The socket takes no data at the moment; it will say when that changes.
    write_blocked: bool,
    /// Nobody will read the socket's other end any more.
    host_deaf: bool,
    /// The guest will send no more, and whether the socket has been told.
    guest_done: bool,
    guest_done_told: bool,

    /// The size of the guest's buffer, what it has taken out of it, and what it was sent.
    peer_buffer: u32,
    peer_forwarded: u32,
    sent: u32,
    /// The guest has been asked for credit since it last gave some.
    credit_requested: bool,
    /// The socket has no data at the moment; it will say when that changes.
    read_blocked: bool,
    /// Nothing will come from the socket any more.
    host_done: bool,
    /// The guest will receive no more.
    guest_deaf: bool,
    /// What the guest has been told in shutdown packets.
    shutdown_told: u32,
    /// The guest has reset the connection: nothing may be sent to it.
    guest_gone: bool,
}

impl Connection {
    /// A connection that the guest is to be asked for.
    pub fn to_guest(socket: UnixStream) -> Self {
        Self::new(socket, false, Op::Request, 0, 0)
    }

    /// A connection that the guest has asked for and gets.
    pub fn from_guest(socket: UnixStream, peer_buffer: u32, peer_forwarded: u32) -> Self {
        Self::new(socket, true, Op::Response, peer_buffer, peer_forwarded)
    }

    fn new(
        socket: UnixStream,
        established: bool,
        control: Op,
        peer_buffer: u32,
        peer_forwarded: u32,
    ) -> Self {
        Self {
            socket,
            established,
            control: Some(control),
            backlog: VecDeque::new(),
            forwarded: 0,
            forwarded_told: 0,
            write_blocked: false,
            host_deaf: false,
            guest_done: false,
            guest_done_told: false,
            peer_buffer,
            peer_forwarded,
            sent: 0,
            credit_requested: false,
            read_blocked: false,
            host_done: false,
            guest_deaf: false,
            shutdown_told: 0,
            guest_gone: false,
        }
    }

    /// The socket may have data again, or its end.
    pub fn readable(&mut self) {
        self.read_blocked = false;
    }

    /// The socket's other end is closed: what it sent can be read, but nothing reaches it.
    pub fn hung_up(&mut self) -> Fate {
        self.read_blocked = false;
        self.stop_writing();
        self.fate()
    }

    /// The socket may take data again.
    pub fn writable(&mut self) -> Fate {
        self.write_blocked = false;
        self.flush();
        self.fate()
    }

    /// Takes what a packet from the guest says about its buffer; every packet does.
    pub fn credit(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.peer_buffer = buf_alloc;
        self.peer_forwarded = fwd_cnt;
        // An answer that gives none is not asked again: the guest says so when it has some.
        self.credit_requested &= self.room() == 0;
    }

    /// Takes a packet from the guest.
    pub fn receive(&mut self, op: Option<Op>, flags: u32, payload: &[u8]) -> Fate {
        match op {
            Some(Op::Response) if !self.established && self.control.is_none() => {
                self.established = true;
            }
            Some(Op::Reset) => {
                self.guest_gone = true;
                self.guest_done = true;
                self.guest_deaf = true;
                self.flush();
            }
            Some(Op::Data) if self.established && !self.guest_done => {
                if self.backlog.len() + payload.len() > BUFFER as usize {
                    // It was told how much it may send.
                    return Fate::Reset;
                }
                self.take(payload);
            }
            Some(Op::Shutdown) if self.established => {
                self.guest_done |= flags & SHUTDOWN_SEND != 0;
                if flags & SHUTDOWN_RECEIVE != 0 && !self.guest_deaf {
                    self.guest_deaf = true;
                    // Whoever writes at the socket's other end is told. That the socket is closed
                    // already is no error here.
                    let _ = self.socket.shutdown(Shutdown::Read);
                }
                self.flush();
            }
            Some(Op::CreditUpdate) if self.established => {}
            Some(Op::CreditRequest) if self.established => {
                self.control.get_or_insert(Op::CreditUpdate);
            }
            _ => return Fate::Reset,
        }
        self.fate()
    }

    /// Whether [`Self::next_packet`] might have something to say.
    pub fn wants_to_send(&self) -> bool {
        !self.guest_gone
            && (self.control.is_some()
                || self.shutdown_due() != 0
                || (self.established && self.update_due())
                || (self.may_read() && (self.room() > 0 || !self.credit_requested)))
    }

    /// The next packet for the guest; its payload is in `buffer`.
    pub fn next_packet(&mut self, buffer: &mut [u8]) -> Option<Outgoing> {
        if self.guest_gone {
            return None;
        }
        let op = if let Some(op) = self.control.take() {
            return Some(self.outgoing(op, 0, 0));
        } else if self.established && self.update_due() {
            Op::CreditUpdate
        } else if self.may_read() {
            let room = buffer.len().min(self.room() as usize);
            if room > 0 {
                if let Some(len) = self.read(&mut buffer[..room]) {
                    return Some(self.outgoing(Op::Data, 0, len));
                }
                Op::Shutdown
            } else if self.room() == 0 && !self.credit_requested {
                self.credit_requested = true;
                Op::CreditRequest
            } else {
                Op::Shutdown
            }
        } else {
            Op::Shutdown
        };
        if op != Op::Shutdown {
            return Some(self.outgoing(op, 0, 0));
        }
        let flags = self.shutdown_due();
        (flags != 0).then(|| {
            self.shutdown_told |= flags;
            self.outgoing(Op::Shutdown, flags, 0)
        })
    }

    fn outgoing(&mut self, op: Op, flags: u32, len: usize) -> Outgoing {
        self.forwarded_told = self.forwarded;
        Outgoing { op, flags, len, fwd_cnt: self.forwarded }
    }

    /// How much more the guest can receive, in bytes. A guest that claims to have taken more than
    /// it was sent has none.
    fn room(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.peer_forwarded);
        self.peer_buffer.saturating_sub(in_flight)
    }

    fn may_read(&self) -> bool {
        self.established && !self.read_blocked && !self.host_done && !self.guest_deaf
    }

    fn update_due(&self) -> bool {
        !self.guest_done && self.forwarded.wrapping_sub(self.forwarded_told) >= UPDATE_AT
    }

    /// What the guest has yet to be told about finished directions.
    fn shutdown_due(&self) -> u32 {
        if !self.established {
            return 0;
        }
        let mut flags = 0;
        if self.host_done {
            flags |= SHUTDOWN_SEND;
        }
        if self.host_deaf && !self.guest_done {
            flags |= SHUTDOWN_RECEIVE;
        }
        flags & !self.shutdown_told
    }

    fn fate(&self) -> Fate {
        let flushed = self.backlog.is_empty();
        if self.guest_gone && flushed {
            Fate::Finished
        } else if self.guest_done && self.guest_deaf && flushed {
            // The guest has closed its socket and waits for this.
            Fate::Reset
        } else {
            Fate::Alive
        }
    }

    /// Reads from the socket; `None` if there is nothing to be had now.
    fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match retry(|| (&self.socket).read(buffer)) {
            Ok(0) => self.host_done = true,
            Ok(len) => {
                self.sent = self.sent.wrapping_add(len as u32);
                return Some(len);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.read_blocked = true,
            // The other end was closed with data from the guest unread in it.
            Err(_) => {
                self.host_done = true;
                self.stop_writing();
            }
        }
        None
    }

    /// Passes data from the guest on, keeping what the socket doesn't take.
    fn take(&mut self, payload: &[u8]) {
        self.flush();
        let mut rest = payload;
        while !rest.is_empty() && self.backlog.is_empty() && !self.write_blocked {
            match self.write(rest) {
                Some(written) => rest = &rest[written..],
                None => break,
            }
        }
        if self.host_deaf {
            self.forwarded = self.forwarded.wrapping_add(rest.len() as u32);
        } else {
            self.backlog.extend(rest);
        }
    }

    fn flush(&mut self) {
        while !self.backlog.is_empty() && !self.write_blocked && !self.host_deaf {
            let (front, _) = self.backlog.as_slices();
            let result = retry(|| (&self.socket).write(front));
            if let Some(written) = self.written(result) {
                self.backlog.drain(..written);
            }
        }
        if self.backlog.is_empty() {
            // A pod may have many idle streams; each keeps only what it needs.
            self.backlog.shrink_to(0);
        }
        if self.guest_done && self.backlog.is_empty() && !self.guest_done_told {
            self.guest_done_told = true;
            // Fails only if the other end is gone, and then there is nobody to tell.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    fn write(&mut self, data: &[u8]) -> Option<usize> {
        let result = retry(|| (&self.socket).write(data));
        self.written(result)
    }

    fn written(&mut self, result: io::Result<usize>) -> Option<usize> {
        match result {
            Ok(written) => {
                self.forwarded = self.forwarded.wrapping_add(written as u32);
                Some(written)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.write_blocked = true;
                None
            }
            Err(_) => {
                self.stop_writing();
                None
            }
        }
    }

    /// Nobody reads the socket's other end any more: what the guest has sent is lost.
    fn stop_writing(&mut self) {
        self.host_deaf = true;
        self.forwarded = self.forwarded.wrapping_add(self.backlog.len() as u32);
        self.backlog = VecDeque::new();
    }
}

fn retry(mut operation: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match operation() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
