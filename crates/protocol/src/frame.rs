//! Length-prefixed JSON.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the length that comes before each message.
pub const HEADER: usize = 4;

/// The most a request may hold, in bytes; a large `config.json` is well below it.
pub const MAX_REQUEST: usize = 16 << 20;

/// The most a reply from the guest may hold, in bytes.
pub const MAX_REPLY: usize = 1 << 20;

/// Why a message couldn't be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection ended within a message.
    #[error("the connection ended within a message")]
    Truncated,
    /// The peer announced more than the reader accepts.
    #[error("a message of {length} bytes was announced; at most {limit} are accepted")]
    TooLarge {
        /// What was announced, in bytes.
        length: usize,
        /// What is accepted, in bytes.
        limit: usize,
    },
    /// The message is not what was expected.
    #[error("malformed message")]
    Malformed(#[from] serde_json::Error),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// A whole frame, ready to be sent.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - HEADER;
    let header = u32::try_from(length)
        .map_err(|_| FrameError::TooLarge { length, limit: u32::MAX as usize })?;
    frame[..HEADER].copy_from_slice(&header.to_be_bytes());
    Ok(frame)
}

/// The length of the message behind `header`, in bytes.
///
/// # Errors
/// [`FrameError::TooLarge`] if it is over `limit`.
pub fn body_length(header: [u8; HEADER], limit: usize) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(header) as usize;
    if length > limit {
        return Err(FrameError::TooLarge { length, limit });
    }
    Ok(length)
}

/// The message in a frame's body.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

/// Sends one message.
pub fn write<T: Serialize>(writer: &mut impl Write, message: &T) -> Result<(), FrameError> {
    writer.write_all(&encode(message)?)?;
    Ok(())
}

/// Receives one message; `None` if the connection ended before its first byte.
pub fn read<T: DeserializeOwned>(
    reader: &mut impl Read,
    limit: usize,
) -> Result<Option<T>, FrameError> {
    let mut header = [0; HEADER];
    if !fill(reader, &mut header)? {
        return Ok(None);
    }
    let mut body = vec![0; body_length(header, limit)?];
    if !body.is_empty() && !fill(reader, &mut body)? {
        return Err(FrameError::Truncated);
    }
    decode(&body).map(Some)
}

/// Fills `buffer`; false if the stream ended before its first byte.
pub(crate) fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> Result<bool, FrameError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(FrameError::Truncated),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_clean_end() {
        let mut wire = Vec::new();
        write(&mut wire, &"hello").unwrap();
        write(&mut wire, &42).unwrap();
        let mut reader = wire.as_slice();
        assert_eq!(read::<String>(&mut reader, 100).unwrap().as_deref(), Some("hello"));
        assert_eq!(read::<u32>(&mut reader, 100).unwrap(), Some(42));
        assert_eq!(read::<u32>(&mut reader, 100).unwrap(), None);
    }

    #[test]
    fn truncation_at_every_byte_is_noticed() {
        let wire = encode(&"hello").unwrap();
        for end in 1..wire.len() {
            let got = read::<String>(&mut &wire[..end], 100);
            assert!(matches!(got, Err(FrameError::Truncated)), "cut at {end}");
        }
    }

    #[test]
    fn an_announced_giant_is_refused_before_it_is_allocated() {
        let wire = [0xff, 0xff, 0xff, 0xff, b'x'];
        let got = read::<String>(&mut wire.as_slice(), MAX_REPLY);
        assert!(matches!(got, Err(FrameError::TooLarge { length: 0xffff_ffff, .. })));
    }

    #[test]
    fn malformed_json_is_an_error() {
        let wire = [0, 0, 0, 1, b'{'];
        assert!(matches!(read::<String>(&mut wire.as_slice(), 10), Err(FrameError::Malformed(_))));
    }
}
