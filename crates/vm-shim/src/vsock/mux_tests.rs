//! The multiplexer against a guest that follows the rules, and against ones that don't.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use super::super::connection::BUFFER;
use super::super::packet::{SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use super::*;

const CID: u64 = 3;
const PORT: u32 = 1022;

fn mux() -> (Mux, oneshot::Receiver<UnixStream>) {
    let wake = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let (accepted, receiver) = oneshot::channel();
    (Mux::new(CID, Listener { port: 1023, accepted }, wake.as_fd()).unwrap(), receiver)
}

/// The guest's end of one stream.
struct Guest {
    host_port: u32,
    buffer: u32,
    received: Vec<u8>,
    /// How much of `received` its program has read.
    read: u32,
    sent: u32,
    host_credit: (u32, u32),
    shutdown: u32,
    reset: bool,
}

impl Guest {
    /// Dials, and lets the guest accept.
    fn dialled(mux: &mut Mux, buffer: u32) -> (Self, UnixStream) {
        let host = mux.dial(PORT).unwrap();
        host.set_nonblocking(true).unwrap();
        let request = mux.next_packet(&mut [0; 64]).expect("a request");
        assert_eq!((request.op, request.dst_port), (Some(Op::Request), PORT));
        let mut guest = Self {
            host_port: request.src_port,
            buffer,
            received: Vec::new(),
            read: 0,
            sent: 0,
            host_credit: (request.buf_alloc, request.fwd_cnt),
            shutdown: 0,
            reset: false,
        };
        guest.send(mux, Op::Response, 0, &[]);
        (guest, host)
    }

    fn send(&mut self, mux: &mut Mux, op: Op, flags: u32, payload: &[u8]) {
        self.sent = self.sent.wrapping_add(payload.len() as u32);
        let header = Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: PORT,
            dst_port: self.host_port,
            len: payload.len() as u32,
            kind: STREAM,
            op: Some(op),
            flags,
            buf_alloc: self.buffer,
            fwd_cnt: self.read,
        };
        mux.receive(&header, payload);
    }

    /// How much it may send.
    fn room(&self) -> usize {
        (self.host_credit.0 - self.sent.wrapping_sub(self.host_credit.1)) as usize
    }

    /// Takes every packet there is, in buffers of `size` bytes.
    fn take(&mut self, mux: &mut Mux, size: usize) {
        let mut buffer = vec![0; size];
        mux.poll().unwrap();
        while let Some(header) = mux.next_packet(&mut buffer) {
            assert_eq!((header.src_port, header.dst_port), (self.host_port, PORT));
            self.handle(mux, &header, &buffer);
        }
    }

    fn handle(&mut self, mux: &mut Mux, header: &Header, buffer: &[u8]) {
        self.host_credit = (header.buf_alloc, header.fwd_cnt);
        match header.op.expect("a known operation") {
            Op::Data => {
                self.received.extend_from_slice(&buffer[..header.len as usize]);
                let unread = self.received.len() as u32 - self.read;
                assert!(unread <= self.buffer, "{unread} bytes in a buffer of {}", self.buffer);
            }
            Op::Shutdown => self.shutdown |= header.flags,
            Op::Reset => self.reset = true,
            Op::CreditRequest => self.send(mux, Op::CreditUpdate, 0, &[]),
            Op::CreditUpdate => {}
            op => panic!("unexpected {op:?}"),
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n ^ (n >> 8)) as u8).collect()
}

#[test]
fn ten_mebibytes_to_the_guest() {
    let (mut mux, _accepted) = mux();
    let (mut guest, mut host) = Guest::dialled(&mut mux, 50_000);
    let data = pattern(10 << 20);
    let mut rest = data.as_slice();
    while !rest.is_empty() || guest.received.len() < data.len() {
        match host.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        guest.take(&mut mux, 4096);
        guest.read = guest.received.len() as u32;
        guest.send(&mut mux, Op::CreditUpdate, 0, &[]);
    }
    assert!(guest.received == data, "the data was damaged");
    drop(host);
    guest.take(&mut mux, 4096);
    assert_eq!(guest.shutdown, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
}

#[test]
fn ten_mebibytes_from_the_guest() {
    let (mut mux, _accepted) = mux();
    let (mut guest, mut host) = Guest::dialled(&mut mux, 50_000);
    let data = pattern(10 << 20);
    let (mut rest, mut received) = (data.as_slice(), Vec::new());
    let mut buffer = vec![0; 30_000];
    while received.len() < data.len() {
        let now = guest.room().min(rest.len()).min(MAX_PAYLOAD);
        if now > 0 {
            let (packet, later) = rest.split_at(now);
            guest.send(&mut mux, Op::Data, 0, packet);
            rest = later;
        }
        match host.read(&mut buffer) {
            Ok(0) => panic!("the stream ended after {} bytes", received.len()),
            Ok(len) => received.extend_from_slice(&buffer[..len]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        guest.take(&mut mux, 4096);
    }
    assert!(received == data, "the data was damaged");
    assert!(!guest.reset);
}

#[test]
fn nothing_is_read_without_credit() {
    let (mut mux, _accepted) = mux();
    let (mut guest, mut host) = Guest::dialled(&mut mux, 1000);
    host.write_all(&pattern(5000)).unwrap();
    guest.take(&mut mux, 4096);
    assert_eq!(guest.received.len(), 1000);
    guest.take(&mut mux, 4096);
    assert_eq!(guest.received.len(), 1000);
    guest.read = 400;
    guest.send(&mut mux, Op::CreditUpdate, 0, &[]);
    guest.take(&mut mux, 4096);
    assert_eq!(guest.received.len(), 1400);
}

#[test]
fn a_guest_that_lies_about_credit_gets_no_more() {
    let (mut mux, _accepted) = mux();
    let (mut guest, mut host) = Guest::dialled(&mut mux, 1000);
    host.write_all(&pattern(5000)).unwrap();
    guest.read = 5_000_000;
    guest.send(&mut mux, Op::CreditUpdate, 0, &[]);
    guest.take(&mut mux, 4096);
    assert_eq!(guest.received.len(), 0);
}

#[test]
fn a_guest_that_overruns_the_buffer_is_cut_off() {
    let (mut mux, _accepted) = mux();
    let (mut guest, _host) = Guest::dialled(&mut mux, 1000);
    for _ in 0..200 {
        guest.send(&mut mux, Op::Data, 0, &[0; 65_536]);
    }
    guest.take(&mut mux, 4096);
    assert!(guest.reset);
    assert!(mux.connections.is_empty());
}

#[test]
fn the_end_of_input_leaves_output_open() {
    let (mut mux, _accepted) = mux();
    let (mut guest, mut host) = Guest::dialled(&mut mux, 10_000);
    host.write_all(b"question").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    guest.take(&mut mux, 4096);
    assert_eq!(guest.received, b"question");
    assert_eq!(guest.shutdown, SHUTDOWN_SEND);
    guest.send(&mut mux, Op::Data, 0, b"answer");
    let mut answer = [0; 6];
    host.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    guest.send(&mut mux, Op::Shutdown, SHUTDOWN_SEND | SHUTDOWN_RECEIVE, &[]);
    assert_eq!(host.read(&mut answer).unwrap(), 0);
    guest.take(&mut mux, 4096);
    assert!(guest.reset, "a closed connection is confirmed");
    assert!(mux.connections.is_empty());
}

/// Fills the host's socket and the backlog behind it, ends the stream with `end`, and checks that
/// all of it arrives before the end does.
fn flushed_before(end: impl FnOnce(&mut Guest, &mut Mux)) {
    let (mut mux, _accepted) = mux();
    let (mut guest, mut host) = Guest::dialled(&mut mux, 10_000);
    let data = pattern(BUFFER as usize + (64 << 10));
    let mut rest = data.as_slice();
    while !rest.is_empty() {
        let now = guest.room().min(rest.len()).min(MAX_PAYLOAD);
        if now == 0 {
            guest.take(&mut mux, 4096);
            assert_ne!(guest.room(), 0, "no room though the socket took some");
            continue;
        }
        let (packet, later) = rest.split_at(now);
        guest.send(&mut mux, Op::Data, 0, packet);
        rest = later;
    }
    end(&mut guest, &mut mux);
    let mut received = Vec::new();
    let mut buffer = vec![0; 10_000];
    loop {
        match host.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => received.extend_from_slice(&buffer[..len]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        mux.poll().unwrap();
    }
    assert!(received == data, "{} of {} bytes arrived", received.len(), data.len());
    assert!(mux.connections.is_empty() || guest.shutdown == 0);
}

#[test]
fn all_data_arrives_before_a_half_close() {
    flushed_before(|guest, mux| guest.send(mux, Op::Shutdown, SHUTDOWN_SEND, &[]));
}

#[test]
fn all_data_arrives_before_a_close() {
    flushed_before(|guest, mux| {
        guest.send(mux, Op::Shutdown, SHUTDOWN_SEND | SHUTDOWN_RECEIVE, &[]);
    });
}

#[test]
fn all_data_arrives_before_a_reset() {
    flushed_before(|guest, mux| guest.send(mux, Op::Reset, 0, &[]));
}

#[test]
fn the_last_data_of_a_host_that_closes_arrives() {
    let (mut mux, _accepted) = mux();
    let (mut guest, mut host) = Guest::dialled(&mut mux, 1000);
    host.write_all(&pattern(3000)).unwrap();
    drop(host);
    for _ in 0..10 {
        guest.take(&mut mux, 4096);
        guest.read = guest.received.len() as u32;
        guest.send(&mut mux, Op::CreditUpdate, 0, &[]);
    }
    assert_eq!(guest.received, pattern(3000));
    assert_eq!(guest.shutdown, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    guest.send(&mut mux, Op::Reset, 0, &[]);
    assert!(mux.connections.is_empty());
}

#[test]
fn a_refused_connection_ends() {
    let (mut mux, _accepted) = mux();
    let mut host = mux.dial(PORT).unwrap();
    let request = mux.next_packet(&mut [0; 64]).unwrap();
    let refusal = Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: PORT,
        dst_port: request.src_port,
        op: Some(Op::Reset),
        ..request
    };
    mux.receive(&refusal, &[]);
    assert_eq!(host.read(&mut [0; 8]).unwrap(), 0);
    assert!(mux.next_packet(&mut [0; 64]).is_none(), "a reset is not answered");
}

#[test]
fn the_guest_connects_once() {
    let (mut mux, mut accepted) = mux();
    let request = |port, src_port| Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port,
        dst_port: port,
        len: 0,
        kind: STREAM,
        op: Some(Op::Request),
        flags: 0,
        buf_alloc: 1000,
        fwd_cnt: 0,
    };
    let answer = |mux: &mut Mux| mux.next_packet(&mut [0; 64]).unwrap().op;
    mux.receive(&request(1022, 7), &[]);
    assert_eq!(answer(&mut mux), Some(Op::Reset), "a port nobody listens on");
    mux.receive(&request(1023, 7), &[]);
    assert_eq!(answer(&mut mux), Some(Op::Response));
    assert!(accepted.try_recv().is_ok());
    mux.receive(&request(1023, 8), &[]);
    assert_eq!(answer(&mut mux), Some(Op::Reset), "a second connection");
    let foreign = Header { src_cid: 99, ..request(1023, 9) };
    mux.receive(&foreign, &[]);
    assert_eq!(answer(&mut mux), Some(Op::Reset), "somebody else's address");
}

#[test]
fn refusals_are_bounded() {
    let (mut mux, _accepted) = mux();
    let (mut guest, _host) = Guest::dialled(&mut mux, 1000);
    guest.host_port = 5;
    let mut taken = 0;
    while mux.accepts_packets() {
        guest.send(&mut mux, Op::Data, 0, b"x");
        taken += 1;
        assert!(taken <= MAX_REFUSALS);
    }
    assert!(mux.next_packet(&mut [0; 64]).is_some());
    assert!(mux.accepts_packets());
}

proptest! {
    /// Whatever a guest sends, the device keeps its bounds, and an honest stream beside the mess
    /// works.
    #[test]
    fn any_packets(packets in prop::collection::vec(
        (0..9u16, 0..4u32, any::<u32>(), any::<u32>(), 0..4u8, 0..3000usize), 0..200,
    )) {
        let (mut mux, _accepted) = mux();
        let (mut honest, mut honest_host) = Guest::dialled(&mut mux, 1000);
        let streams: Vec<UnixStream> = (0..3).map(|_| mux.dial(PORT).unwrap()).collect();
        let mut buffer = [0; 2000];
        for (op, flags, buf_alloc, fwd_cnt, port, length) in packets {
            let mut bytes = Header {
                src_cid: CID,
                dst_cid: HOST_CID,
                src_port: PORT,
                dst_port: honest.host_port + 1 + u32::from(port),
                len: length as u32,
                kind: STREAM,
                op: None,
                flags,
                buf_alloc,
                fwd_cnt,
            }.to_bytes();
            bytes[30..32].copy_from_slice(&op.to_le_bytes());
            mux.receive(&Header::from_bytes(&bytes), &pattern(length));
            mux.poll().unwrap();
            if length % 2 == 0 {
                mux.next_packet(&mut buffer);
            }
            prop_assert!(mux.connections.len() <= 4);
            prop_assert!(mux.queue.len() <= 4);
        }
        drop(streams);
        honest_host.write_all(b"hello").unwrap();
        mux.poll().unwrap();
        while let Some(header) = mux.next_packet(&mut buffer) {
            if header.src_port == honest.host_port {
                honest.handle(&mut mux, &header, &buffer);
            }
        }
        prop_assert_eq!(&honest.received, b"hello");
    }
}
