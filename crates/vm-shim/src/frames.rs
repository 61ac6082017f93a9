//! Frames over an asynchronous socket.

use anyhow::{Context, bail};
use runhcs_protocol::frame::{self, FrameError, HEADER};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads frames. A call of [`Self::next`] that is dropped loses nothing.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: R,
    limit: usize,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Accepts messages of up to `limit` bytes.
    pub fn new(reader: R, limit: usize) -> Self {
        Self::after(Vec::new(), reader, limit)
    }

    /// As [`Self::new`], where `start` was read already.
    pub fn after(start: Vec<u8>, reader: R, limit: usize) -> Self {
        Self { reader, limit, buffer: start }
    }

    /// The next message; `None` if the peer has ended the connection.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            let mut wanted = HEADER;
            if let Some(header) = self.buffer.first_chunk() {
                wanted += frame::body_length(*header, self.limit)?;
                if let Some(body) = self.buffer.get(HEADER..wanted) {
                    let message = frame::decode(body);
                    self.buffer.drain(..wanted);
                    self.buffer.shrink_to(4096);
                    return message.map(Some);
                }
            }
            // Grows with what arrives, not with what is announced.
            self.buffer.reserve((wanted - self.buffer.len()).min(64 << 10));
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
    }

    /// The next message, which has to come.
    pub async fn expect<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        match self.next().await.context("malformed message")? {
            Some(message) => Ok(message),
            None => bail!("the connection was closed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(wire: &[u8], limit: usize) -> Result<Vec<String>, FrameError> {
        let mut reader = FrameReader::new(wire, limit);
        let mut messages = Vec::new();
        while let Some(message) = reader.next().await? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[tokio::test]
    async fn several_in_one_read() {
        let mut wire = frame::encode(&"one").unwrap();
        wire.extend(frame::encode(&"two").unwrap());
        assert_eq!(read_all(&wire, 100).await.unwrap(), ["one", "two"]);
        let cut = read_all(&wire[..wire.len() - 1], 100).await;
        assert!(matches!(cut, Err(FrameError::Truncated)), "{cut:?}");
        let large = read_all(&wire, 4).await;
        assert!(matches!(large, Err(FrameError::TooLarge { length: 5, limit: 4 })), "{large:?}");
    }
}
