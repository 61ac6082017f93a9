//! Stdio on a vsock connection: chunks with a length, and an explicit end.
//!
//! The VM shim dials [`crate::STREAM_PORT`] in the guest and sends one [`Open`] frame; the agent
//! answers with one [`Opened`] frame. From then on each side sends chunks: two bytes of length,
//! most significant first, then that many bytes. A chunk of length zero is the end of that
//! direction, and the other direction goes on. A connection that ends without it was cut, which
//! the reader can tell from a process that closed its output. Back-pressure is vsock's own.
//!
//! Output may go on after the process has ended, from others that it has left behind with the same
//! pipe. A length of [`LAST_WORDS`], with no bytes, says that what the process itself wrote has all
//! been sent.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use crate::frame::{FrameError, fill};
use crate::guest::{Failure, ProcessKey};

/// The most one chunk can hold, in bytes.
pub const MAX_CHUNK: usize = u16::MAX as usize - 1;

/// In the place of a chunk's length: the process has ended, and this is all that it wrote. Sent at
/// most once, and only in output that goes on.
pub const LAST_WORDS: u16 = u16::MAX;

/// Which of a process's streams a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stream {
    /// Host to guest.
    Stdin,
    /// Guest to host.
    Stdout,
    /// Guest to host.
    Stderr,
    /// Both ways.
    Terminal,
}

/// The first frame of a stream connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// Whose stream.
    pub process: ProcessKey,
    /// Which one. Each can be opened once.
    pub stream: Stream,
}

/// The agent's answer to [`Open`].
pub type Opened = Result<(), Failure>;

/// Sends `data` as chunks. Sends nothing, not an end, for no data.
pub fn write_data(writer: &mut impl Write, data: &[u8]) -> Result<(), FrameError> {
    for part in data.chunks(MAX_CHUNK) {
        let mut chunk = Vec::with_capacity(2 + part.len());
        chunk.extend_from_slice(&(part.len() as u16).to_be_bytes());
        chunk.extend_from_slice(part);
        writer.write_all(&chunk)?;
    }
    Ok(())
}

/// Ends this direction.
pub fn write_end(writer: &mut impl Write) -> Result<(), FrameError> {
    writer.write_all(&[0, 0])?;
    Ok(())
}

/// Receives one chunk into `buffer`, replacing what it held; false at the end of the direction.
/// Not for output, which can have [`LAST_WORDS`].
///
/// # Errors
/// [`FrameError::Truncated`] if the connection ends without an end chunk.
pub fn read_chunk(reader: &mut impl Read, buffer: &mut Vec<u8>) -> Result<bool, FrameError> {
    let mut header = [0; 2];
    if !fill(reader, &mut header)? {
        return Err(FrameError::Truncated);
    }
    let length = usize::from(u16::from_be_bytes(header));
    if length > MAX_CHUNK {
        return Err(FrameError::TooLarge { length, limit: MAX_CHUNK });
    }
    buffer.resize(length, 0);
    if length == 0 {
        return Ok(false);
    }
    if !fill(reader, buffer)? {
        return Err(FrameError::Truncated);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_then_end() {
        let data: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        let mut wire = Vec::new();
        write_data(&mut wire, &data).unwrap();
        write_data(&mut wire, &[]).unwrap();
        write_end(&mut wire).unwrap();
        let mut reader = wire.as_slice();
        let (mut got, mut chunk) = (Vec::new(), Vec::new());
        while read_chunk(&mut reader, &mut chunk).unwrap() {
            got.extend_from_slice(&chunk);
        }
        assert_eq!(got, data);
        assert!(reader.is_empty());
    }

    #[test]
    fn a_cut_is_not_an_end() {
        let mut wire = Vec::new();
        write_data(&mut wire, b"abc").unwrap();
        for end in 0..wire.len() {
            let got = read_chunk(&mut &wire[..end], &mut Vec::new());
            assert!(matches!(got, Err(FrameError::Truncated)), "cut at {end}");
        }
    }
}
