//! D-Bus messages (specification, "Message Format").

use crate::wire::{Reader, Writer};
use crate::{Error, Result};

/// The most that a message may hold, in bytes. What the manager sends is far smaller.
pub(crate) const MAX: usize = 1 << 20;

/// The part of a message whose size is fixed, in bytes.
pub(crate) const FIXED: usize = 16;

const VERSION: u8 = 1;

/// Codes of header fields.
mod field {
    pub const PATH: u8 = 1;
    pub const INTERFACE: u8 = 2;
    pub const MEMBER: u8 = 3;
    pub const ERROR_NAME: u8 = 4;
    pub const REPLY_SERIAL: u8 = 5;
    pub const DESTINATION: u8 = 6;
    pub const SENDER: u8 = 7;
    pub const SIGNATURE: u8 = 8;
    pub const UNIX_FDS: u8 = 9;
}

/// A method to call.
#[derive(Debug)]
pub(crate) struct Call {
    /// Whom to ask on a bus; on a direct connection it is left out.
    pub destination: &'static str,
    pub path: &'static str,
    pub interface: &'static str,
    pub member: &'static str,
    pub signature: &'static str,
    pub body: Vec<u8>,
}

impl Call {
    pub(crate) fn encode(&self, serial: u32, direct: bool) -> Vec<u8> {
        const METHOD_CALL: u8 = 1;
        let mut writer = Writer::default();
        for byte in [b'l', METHOD_CALL, 0, VERSION] {
            writer.byte(byte);
        }
        writer.u32(self.body.len() as u32);
        writer.u32(serial);
        writer.array(8, |writer| {
            let mut text = |code, kind, value: &str| {
                writer.align(8);
                writer.byte(code);
                writer.signature(kind);
                writer.string(value);
            };
            text(field::PATH, "o", self.path);
            text(field::INTERFACE, "s", self.interface);
            text(field::MEMBER, "s", self.member);
            if !direct {
                text(field::DESTINATION, "s", self.destination);
            }
            if !self.signature.is_empty() {
                writer.align(8);
                writer.byte(field::SIGNATURE);
                writer.signature("g");
                writer.signature(self.signature);
            }
        });
        writer.body(&self.body);
        writer.finish()
    }
}

/// What a received message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Reply { to: u32 },
    Error { to: u32, name: String },
    Signal { member: String },
    Other,
}

/// A received message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub kind: Kind,
    pub signature: String,
    body: Vec<u8>,
    big: bool,
}

/// How many bytes follow the fixed part of a message.
pub(crate) fn rest(fixed: &[u8; FIXED]) -> Result<usize> {
    let big = is_big(fixed[0])?;
    if fixed[3] != VERSION {
        return Err(Error::Protocol(format!("protocol version {}", fixed[3])));
    }
    let mut reader = Reader::new(&fixed[4..], big);
    let body = reader.u32()? as usize;
    reader.u32()?;
    let fields = reader.u32()? as usize;
    if body > MAX || fields > MAX {
        return Err(Error::Protocol(format!("a message of {} bytes", body.max(fields))));
    }
    Ok(fields.next_multiple_of(8) + body)
}

fn is_big(order: u8) -> Result<bool> {
    match order {
        b'l' => Ok(false),
        b'B' => Ok(true),
        other => Err(Error::Protocol(format!("byte order {other:#x}"))),
    }
}

impl Message {
    /// Parses a whole message.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, false);
        let big = is_big(reader.byte()?)?;
        let kind = reader.byte()?;
        let mut reader = Reader::new(bytes, big);
        for _ in 0..4 {
            reader.byte()?;
        }
        let _body = reader.u32()?;
        let _serial = reader.u32()?;
        let end = reader.u32()? as usize + reader.position();
        let (mut member, mut error, mut to, mut signature) =
            (String::new(), String::new(), 0, String::new());
        while reader.position() < end {
            reader.align(8)?;
            let code = reader.byte()?;
            reader.signature()?;
            match code {
                field::REPLY_SERIAL => to = reader.u32()?,
                field::MEMBER => member = reader.string()?,
                field::ERROR_NAME => error = reader.string()?,
                field::SIGNATURE => signature = reader.signature()?,
                field::UNIX_FDS => drop(reader.u32()?),
                field::PATH | field::INTERFACE | field::DESTINATION | field::SENDER => {
                    drop(reader.string()?);
                }
                other => return Err(Error::Protocol(format!("header field {other}"))),
            }
        }
        reader.align(8)?;
        let body = bytes[reader.position()..].to_vec();
        let kind = match kind {
            2 => Kind::Reply { to },
            3 => Kind::Error { to, name: error },
            4 => Kind::Signal { member },
            _ => Kind::Other,
        };
        Ok(Self { kind, signature, body, big })
    }

    /// Reads its body, whose signature must be the one that is expected.
    pub(crate) fn body(&self, signature: &str) -> Result<Reader<'_>> {
        if self.signature != signature {
            let why = format!("it has the signature {:?}, not {signature:?}", self.signature);
            return Err(Error::Protocol(why));
        }
        Ok(Reader::new(&self.body, self.big))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(direct: bool) -> Vec<u8> {
        let mut body = Writer::default();
        body.string("x.scope");
        let call = Call {
            destination: "a.b",
            path: "/a",
            interface: "a.c",
            member: "M",
            signature: "s",
            body: body.finish(),
        };
        call.encode(9, direct)
    }

    #[test]
    fn a_call_is_a_whole_message() {
        for direct in [false, true] {
            let bytes = call(direct);
            let fixed: [u8; FIXED] = bytes[..FIXED].try_into().unwrap();
            assert_eq!(rest(&fixed).unwrap() + FIXED, bytes.len());
            let message = Message::decode(&bytes).unwrap();
            assert_eq!((&message.kind, message.signature.as_str()), (&Kind::Other, "s"));
            assert_eq!(message.body("s").unwrap().string().unwrap(), "x.scope");
            assert!(message.body("o").is_err());
            assert_eq!(bytes.windows(3).any(|three| three == b"a.b"), !direct);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut fixed = [0; FIXED];
        assert!(rest(&fixed).is_err());
        fixed[0] = b'l';
        assert!(rest(&fixed).is_err());
        fixed[3] = 1;
        assert_eq!(rest(&fixed).unwrap(), 0);
        fixed[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(rest(&fixed).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(mut bytes: Vec<u8>) {
            if let Some(first) = bytes.first_mut() {
                *first = b'l';
            }
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn a_damaged_message_is_decoded_or_refused(at in 0usize..80, value: u8) {
            let mut bytes = call(false);
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = Message::decode(&bytes);
        }
    }
}
