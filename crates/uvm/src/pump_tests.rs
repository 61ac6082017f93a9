//! Both pumps between real pipes and sockets.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use runhcs_protocol::stream;

use super::*;

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n ^ (n >> 9)) as u8).collect()
}

fn poll_once(wait: Wait<'_>) -> bool {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(wait.0, wait.1)];
    let timeout = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap() == 1
}

#[test]
fn input_arrives_in_chunks_with_an_end() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (guest, mut agent) = UnixStream::pair().unwrap();
    let data = pattern(1 << 20);
    let copy = data.clone();
    let feeding = std::thread::spawn(move || writer.write_all(&copy).unwrap());
    let agent = std::thread::spawn(move || {
        let (mut got, mut chunk) = (Vec::new(), Vec::new());
        while stream::read_chunk(&mut agent, &mut chunk).unwrap() {
            got.extend_from_slice(&chunk);
        }
        got
    });
    let mut pump = Inbound::new(Local::new(reader.as_fd(), false).unwrap());
    while let Some(wait) = pump.wait(guest.as_fd()) {
        assert!(poll_once(wait), "the pump waits for nothing");
        pump.turn(guest.as_fd());
    }
    feeding.join().unwrap();
    assert!(agent.join().unwrap() == data, "the data was damaged");
    let flags = rustix::fs::fcntl_getfl(&reader).unwrap();
    assert!(!flags.contains(OFlags::NONBLOCK), "the caller's pipe was changed");
}

fn receive(local: Local<'_>, wire: Vec<u8>) -> OutState {
    let (guest, mut agent) = UnixStream::pair().unwrap();
    // In odd pieces, so that headers are torn apart.
    let sending = std::thread::spawn(move || {
        for piece in wire.chunks(7_919) {
            if agent.write_all(piece).is_err() {
                return;
            }
        }
    });
    let mut pump = Outbound::new(local);
    while let Some(wait) = pump.wait(guest.as_fd()) {
        assert!(poll_once(wait), "the pump waits for nothing");
        pump.turn(guest.as_fd());
    }
    drop(guest);
    sending.join().unwrap();
    pump.state()
}

#[test]
fn output_arrives_whole() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let data = pattern(1 << 20);
    let mut wire = Vec::new();
    for part in data.chunks(333) {
        stream::write_data(&mut wire, part).unwrap();
    }
    stream::write_end(&mut wire).unwrap();
    let reading = std::thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        got
    });
    let state = receive(Local::new(writer.as_fd(), true).unwrap(), wire);
    assert_eq!(state, OutState::Ended);
    drop(writer);
    assert!(reading.join().unwrap() == data, "the data was damaged");
}

#[test]
fn a_cut_is_told_from_an_end() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut wire = Vec::new();
    stream::write_data(&mut wire, b"abc").unwrap();
    wire.truncate(4);
    assert_eq!(receive(Local::new(writer.as_fd(), true).unwrap(), wire), OutState::Cut);
}

#[test]
fn output_that_nobody_reads_is_unwanted() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut wire = Vec::new();
    stream::write_data(&mut wire, &pattern(100_000)).unwrap();
    assert_eq!(receive(Local::new(writer.as_fd(), true).unwrap(), wire), OutState::Unwanted);
}

#[test]
fn a_slow_socket_is_waited_for() {
    let (local, mut far) = UnixStream::pair().unwrap();
    let data = pattern(500_000);
    let mut wire = Vec::new();
    stream::write_data(&mut wire, &data).unwrap();
    stream::write_end(&mut wire).unwrap();
    let reading = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        got
    });
    assert_eq!(receive(Local::new(local.as_fd(), true).unwrap(), wire), OutState::Ended);
    drop(local);
    assert!(reading.join().unwrap() == data, "the data was damaged");
}
