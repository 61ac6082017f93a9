//! Every vsock stream of one VM: hands packets to the connection they belong to, and says what is
//! to be sent to the guest next. Knows nothing of virtqueues.
//!
//! Connections are dialled by the host, but for one: the guest agent's, to a port that takes
//! exactly one connection. All else that a guest asks for is refused, so a guest can't make the
//! host allocate.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::epoll;
use tokio::sync::oneshot;

use super::connection::{Connection, Fate};
use super::packet::{HOST_CID, Header, MAX_PAYLOAD, Op, STREAM};

/// How many refusals may wait to be sent before the guest's packets are left where they are.
const MAX_REFUSALS: usize = 256;
/// How many streams one VM can have.
const MAX_CONNECTIONS: usize = 8192;
/// The first port that the host dials from; those below are privileged.
const FIRST_HOST_PORT: u32 = 1024;
/// Marks the wake-up descriptor in the poll set. No connection has this host port.
const WAKE: u64 = u64::MAX;

/// A connection's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ports {
    host: u32,
    guest: u32,
}

impl Ports {
    fn token(self) -> u64 {
        u64::from(self.host) << 32 | u64::from(self.guest)
    }

    fn of_token(token: u64) -> Self {
        Self { host: (token >> 32) as u32, guest: token as u32 }
    }
}

struct Slot {
    connection: Connection,
    /// Whether it is in the queue of those that may have something to send.
    queued: bool,
}

/// The one port on which the guest can reach the host, until it has.
pub struct Listener {
    /// Its number.
    pub port: u32,
    /// Gets the host's end of the connection.
    pub accepted: oneshot::Sender<UnixStream>,
}

/// The streams of one VM.
pub struct Mux {
    guest_cid: u64,
    connections: HashMap<Ports, Slot>,
    /// Connections that may have something to send, in turn.
    queue: VecDeque<Ports>,
    /// Headers of resets for packets that belong to no connection.
    refusals: VecDeque<Header>,
    listener: Option<Listener>,
    next_port: u32,
    poll: OwnedFd,
}

impl Mux {
    /// No streams. `wake` is a descriptor that makes [`Self::poll_fd`] readable.
    pub fn new(guest_cid: u64, listener: Listener, wake: BorrowedFd<'_>) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Self {
            guest_cid,
            connections: HashMap::new(),
            queue: VecDeque::new(),
            refusals: VecDeque::new(),
            listener: Some(listener),
            next_port: FIRST_HOST_PORT,
            poll,
        })
    }

    /// Readable whenever [`Self::poll`] has something to do.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }

    /// Starts connecting to a port of the guest. If the guest refuses, the socket ends.
    ///
    /// # Errors
    /// If the VM has as many streams as it can have, or the host is out of descriptors.
    pub fn dial(&mut self, guest_port: u32) -> io::Result<UnixStream> {
        let ports = loop {
            let ports = Ports { host: self.next_port, guest: guest_port };
            self.next_port = match self.next_port.checked_add(1) {
                Some(u32::MAX) | None => FIRST_HOST_PORT,
                Some(port) => port,
            };
            if !self.connections.contains_key(&ports) {
                break ports;
            }
        };
        let (device, host) = UnixStream::pair()?;
        self.insert(ports, device, Connection::to_guest)?;
        Ok(host)
    }

    /// Takes note of what the sockets are ready for. True if the wake-up descriptor was among
    /// them: its owner resets it.
    pub fn poll(&mut self) -> io::Result<bool> {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 64];
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let count = epoll::wait(&self.poll, &mut events, Some(&timeout))?;
        let mut woken = false;
        for event in &events[..count] {
            let (token, flags) = (event.data.u64(), event.flags);
            if token == WAKE {
                woken = true;
                continue;
            }
            let ports = Ports::of_token(token);
            let Some(slot) = self.connections.get_mut(&ports) else { continue };
            let mut fate = Fate::Alive;
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP) {
                slot.connection.readable();
            }
            if flags.contains(epoll::EventFlags::OUT) {
                fate = slot.connection.writable();
            }
            if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                fate = slot.connection.hung_up();
            }
            self.conclude(ports, fate);
        }
        Ok(woken)
    }

    /// Whether another packet from the guest can be taken. If not, the guest has to take some of
    /// ours first.
    pub fn accepts_packets(&self) -> bool {
        self.refusals.len() < MAX_REFUSALS
    }

    /// Takes one packet from the guest. Nothing in it is trusted.
    pub fn receive(&mut self, header: &Header, payload: &[u8]) {
        let ports = Ports { host: header.dst_port, guest: header.src_port };
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID || header.kind != STREAM {
            self.refuse(header);
            return;
        }
        if let Some(slot) = self.connections.get_mut(&ports) {
            slot.connection.credit(header.buf_alloc, header.fwd_cnt);
            let fate = slot.connection.receive(header.op, header.flags, payload);
            self.conclude(ports, fate);
        } else if header.op == Some(Op::Request) && self.accept(ports, header).is_some() {
            self.conclude(ports, Fate::Alive);
        } else {
            self.refuse(header);
        }
    }

    /// Whether there may be a packet for the guest.
    pub fn has_packets(&self) -> bool {
        !self.refusals.is_empty() || !self.queue.is_empty()
    }

    /// The next packet for the guest; its payload, if any, is in `buffer`.
    pub fn next_packet(&mut self, buffer: &mut [u8]) -> Option<Header> {
        if let Some(refusal) = self.refusals.pop_front() {
            return Some(refusal);
        }
        let limit = buffer.len().min(MAX_PAYLOAD);
        while let Some(ports) = self.queue.pop_front() {
            let Some(slot) = self.connections.get_mut(&ports) else { continue };
            slot.queued = false;
            let Some(outgoing) = slot.connection.next_packet(&mut buffer[..limit]) else {
                if limit == 0 && slot.connection.wants_to_send() {
                    // Its data waits for a larger buffer.
                    slot.queued = true;
                    self.queue.push_front(ports);
                    return None;
                }
                continue;
            };
            self.conclude(ports, Fate::Alive);
            return Some(Header {
                len: outgoing.len as u32,
                op: Some(outgoing.op),
                flags: outgoing.flags,
                buf_alloc: super::connection::BUFFER,
                fwd_cnt: outgoing.fwd_cnt,
                ..self.header(ports)
            });
        }
        None
    }

    /// Accepts what is asked for if it is the one connection that the guest may ask for.
    fn accept(&mut self, ports: Ports, header: &Header) -> Option<()> {
        let listener = self.listener.take_if(|listener| listener.port == ports.host)?;
        let (device, host) = UnixStream::pair().ok()?;
        self.insert(ports, device, |socket| {
            Connection::from_guest(socket, header.buf_alloc, header.fwd_cnt)
        })
        .ok()?;
        // If nobody waits for it any more, dropping the host's end ends the connection.
        let _ = listener.accepted.send(host);
        Some(())
    }

    fn insert(
        &mut self,
        ports: Ports,
        socket: UnixStream,
        connection: impl FnOnce(UnixStream) -> Connection,
    ) -> io::Result<()> {
        if self.connections.len() >= MAX_CONNECTIONS {
            return Err(io::Error::other(format!(
                "the virtual machine has {MAX_CONNECTIONS} streams open already"
            )));
        }
        socket.set_nonblocking(true)?;
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        epoll::add(&self.poll, &socket, epoll::EventData::new_u64(ports.token()), flags)?;
        let slot = Slot { connection: connection(socket), queued: true };
        self.connections.insert(ports, slot);
        self.queue.push_back(ports);
        Ok(())
    }

    /// Keeps, queues or forgets a connection after something has happened to it.
    fn conclude(&mut self, ports: Ports, fate: Fate) {
        let Entry::Occupied(mut entry) = self.connections.entry(ports) else { return };
        if fate == Fate::Alive {
            let slot = entry.get_mut();
            if !slot.queued && slot.connection.wants_to_send() {
                slot.queued = true;
                self.queue.push_back(ports);
            }
            return;
        }
        // Dropping the socket takes it out of the poll set.
        entry.remove();
        if fate == Fate::Reset {
            let header = Header { op: Some(Op::Reset), ..self.header(ports) };
            self.refusals.push_back(header);
        }
    }

    /// Answers a packet that belongs to no connection. Nothing is said to a reset.
    fn refuse(&mut self, header: &Header) {
        if header.op != Some(Op::Reset) {
            self.refusals.push_back(Header {
                src_cid: header.dst_cid,
                dst_cid: header.src_cid,
                src_port: header.dst_port,
                dst_port: header.src_port,
                len: 0,
                kind: header.kind,
                op: Some(Op::Reset),
                flags: 0,
                buf_alloc: 0,
                fwd_cnt: 0,
            });
        }
    }

    fn header(&self, ports: Ports) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: ports.host,
            dst_port: ports.guest,
            len: 0,
            kind: STREAM,
            op: None,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }
}

#[cfg(test)]
#[path = "mux_tests.rs"]
mod tests;
