//! The client against a peer that plays systemd, message by message.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

use super::*;
use crate::Error;
use crate::message::{FIXED, Message, rest};

/// What the peer does for one call: its member's name, its signature, then messages to send.
type Answer = (&'static str, &'static str, Vec<Reply>);

enum Reply {
    Return(&'static str, Vec<u8>),
    Error(&'static str, &'static str),
    JobRemoved(&'static str, &'static str),
}

fn header(
    kind: u8,
    to: Option<u32>,
    fields: &[(u8, &str)],
    signature: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut writer = Writer::default();
    for byte in [b'l', kind, 1, 1] {
        writer.byte(byte);
    }
    writer.u32(body.len() as u32);
    writer.u32(77);
    writer.array(8, |writer| {
        if let Some(to) = to {
            writer.byte(5);
            writer.signature("u");
            writer.u32(to);
        }
        for (code, text) in fields {
            writer.align(8);
            writer.byte(*code);
            writer.signature(if *code == 1 { "o" } else { "s" });
            writer.string(text);
        }
        if !signature.is_empty() {
            writer.align(8);
            writer.byte(8);
            writer.signature("g");
            writer.signature(signature);
        }
    });
    writer.body(body);
    writer.finish()
}

impl Reply {
    fn encode(&self, to: u32) -> Vec<u8> {
        match self {
            Self::Return(signature, body) => header(2, Some(to), &[], signature, body),
            Self::Error(name, text) => {
                header(3, Some(to), &[(4, name)], "s", &body(|writer| writer.string(text)))
            }
            Self::JobRemoved(job, result) => {
                let body = body(|writer| {
                    writer.u32(5);
                    writer.string(job);
                    writer.string("x.scope");
                    writer.string(result);
                });
                header(4, None, &[(1, PATH), (2, "i.M"), (3, "JobRemoved")], "uoss", &body)
            }
        }
    }
}

fn read_message(stream: &mut impl Read) -> Option<(u32, Vec<u8>, Message)> {
    let mut fixed = [0; FIXED];
    stream.read_exact(&mut fixed).ok()?;
    let mut bytes = fixed.to_vec();
    bytes.resize(FIXED + rest(&fixed).unwrap(), 0);
    stream.read_exact(&mut bytes[FIXED..]).unwrap();
    let serial = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
    let message = Message::decode(&bytes).unwrap();
    Some((serial, bytes, message))
}

/// Plays one connection; returns the bytes of every call.
fn play(
    answers: Vec<Answer>,
    direct: bool,
) -> (tempfile::TempDir, Address, JoinHandle<Vec<Vec<u8>>>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let peer = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        serve(stream, answers)
    });
    (directory, Address { path, direct }, peer)
}

fn serve(stream: UnixStream, answers: Vec<Answer>) -> Vec<Vec<u8>> {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = |expected: &str, answer: &str| {
        let mut text = String::new();
        reader.read_line(&mut text).unwrap();
        assert_eq!(text, expected);
        writer.write_all(answer.as_bytes()).unwrap();
    };
    line("\0AUTH EXTERNAL\r\n", "DATA\r\n");
    line("DATA\r\n", "OK 0123\r\n");
    line("BEGIN\r\n", "");
    let mut calls = Vec::new();
    for (member, signature, replies) in answers {
        let (serial, bytes, message) = read_message(&mut reader).expect(member);
        assert_eq!(message.signature, signature, "{member}");
        let name = member.as_bytes();
        assert!(bytes.windows(name.len()).any(|part| part == name), "{member}: {bytes:?}");
        calls.push(bytes);
        for reply in replies {
            writer.write_all(&reply.encode(serial)).unwrap();
        }
    }
    calls
}

fn path_of(job: &str) -> Vec<u8> {
    body(|writer| writer.string(job))
}

fn nothing() -> Reply {
    Reply::Return("", Vec::new())
}

const START: &str = "ssa(sv)a(sa(sv))";

#[test]
fn a_scope_is_started_over_a_bus() {
    let (_directory, address, peer) = play(
        vec![
            ("Hello", "", vec![Reply::Return("s", path_of(":1.5"))]),
            ("AddMatch", "s", vec![nothing()]),
            ("Subscribe", "", vec![nothing()]),
            (
                "StartTransientUnit",
                START,
                vec![
                    // Another's job, and this one's before the reply.
                    Reply::JobRemoved("/job/1", "failed"),
                    Reply::JobRemoved("/job/2", "done"),
                    Reply::Return("o", path_of("/job/2")),
                ],
            ),
        ],
        false,
    );
    let mut manager = Manager::over(Bus::connect(&[address]).unwrap()).unwrap();
    let unit = UnitName::new("x.scope").unwrap();
    let properties = [
        ("PIDs".into(), Value::U32s(vec![42])),
        ("MemoryMax".into(), Value::U64(5)),
        ("DeviceAllow".into(), Value::Pairs(vec![("char-*".into(), "m".into())])),
        ("AllowedCPUs".into(), Value::Bytes(vec![3])),
    ];
    manager.start(&unit, &properties).unwrap();
    let calls = peer.join().unwrap();
    // By the specification: the name, the variant's signature, the array's length, its element.
    let expected: &[u8] = b"\x04\0\0\0PIDs\0\x02au\0\0\0\0\x04\0\0\0\x2a\0\0\0";
    let start = calls.last().unwrap();
    assert!(start.windows(expected.len()).any(|part| part == expected), "{start:?}");
}

#[test]
fn without_a_bus_the_manager_is_asked_directly_and_a_failed_unit_makes_place() {
    let (_directory, address, peer) = play(
        vec![
            (
                "StartTransientUnit",
                START,
                vec![Reply::Error("org.freedesktop.systemd1.UnitExists", "there is one")],
            ),
            ("ResetFailedUnit", "s", vec![nothing()]),
            (
                "StartTransientUnit",
                START,
                vec![Reply::Return("o", path_of("/job/7")), Reply::JobRemoved("/job/7", "timeout")],
            ),
        ],
        true,
    );
    let missing = Address { path: "/nonexistent/bus".into(), direct: false };
    let mut manager = Manager::over(Bus::connect(&[missing, address]).unwrap()).unwrap();
    let error = manager.start(&UnitName::new("x.scope").unwrap(), &[]).unwrap_err();
    assert!(matches!(&error, Error::Job { result, .. } if result == "timeout"), "{error}");
    peer.join().unwrap();
}

#[test]
fn stopping_what_is_gone_is_no_error_and_other_refusals_are_told() {
    let (_directory, address, peer) = play(
        vec![
            (
                "StopUnit",
                "ss",
                vec![Reply::Error("org.freedesktop.systemd1.NoSuchUnit", "not loaded")],
            ),
            (
                "ResetFailedUnit",
                "s",
                vec![Reply::Error("org.freedesktop.systemd1.NoSuchUnit", "not loaded")],
            ),
            (
                "SetUnitProperties",
                "sba(sv)",
                vec![Reply::Error("org.freedesktop.DBus.Error.InvalidArgs", "no such property")],
            ),
            ("Get", "ss", vec![Reply::Return("v", body(|w| Value::Text("/user".into()).write(w)))]),
            (
                "Get",
                "ss",
                vec![Reply::Return("v", body(|w| Value::Text("252.1-2".into()).write(w)))],
            ),
            ("Get", "ss", vec![Reply::Return("v", body(|w| Value::Text("x".into()).write(w)))]),
        ],
        true,
    );
    let mut manager = Manager::over(Bus::connect(&[address]).unwrap()).unwrap();
    let unit = UnitName::new("x.scope").unwrap();
    manager.stop(&unit).unwrap();
    let error = manager.set(&unit, &[("CPUWeight".into(), Value::U64(5))]).unwrap_err().to_string();
    assert_eq!(
        error,
        "SetUnitProperties: no such property (org.freedesktop.DBus.Error.InvalidArgs)"
    );
    assert_eq!(manager.control_group().unwrap(), Path::new("/user"));
    assert_eq!(manager.version().unwrap(), 252);
    assert!(manager.version().is_err());
    peer.join().unwrap();
}

#[test]
fn a_peer_that_hangs_up_is_no_endless_wait() {
    let (_directory, address, peer) = play(Vec::new(), true);
    let mut manager = Manager::over(Bus::connect(&[address]).unwrap()).unwrap();
    peer.join().unwrap();
    let error = manager.stop(&UnitName::new("x.scope").unwrap()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    let error = Bus::connect(&[Address { path: "/nonexistent".into(), direct: true }]).unwrap_err();
    assert_eq!(error.to_string(), "no systemd answers: none of /nonexistent can be connected to");
}
