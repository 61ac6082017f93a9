//! A process's stdio over connections from the host: chunks with back-pressure, an explicit end,
//! and everything that the process wrote before it ended.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use runhcs_protocol::frame;
use runhcs_protocol::stream::{LAST_WORDS, MAX_CHUNK, Open, Opened};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;

use crate::reaper::{Exit, ended};
use crate::requests;
use crate::server::{End, Server};

/// The most an [`Open`] frame may hold, in bytes: an id of the greatest length and some.
const MAX_OPEN: usize = 16 << 10;

/// Serves one connection. What goes wrong ends it; the host sees that no end was sent.
pub async fn serve(
    server: Rc<Server>,
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
) {
    let Ok(Some(open)) = requests::read::<Open>(&mut reader, MAX_OPEN).await else { return };
    let found = server
        .process(&open.process)
        .and_then(|process| Ok((process.take(open.stream)?, process.exit.clone())));
    let (opened, found): (Opened, _) = match found {
        Ok(found) => (Ok(()), Some(found)),
        Err(failure) => (Err(failure), None),
    };
    let reply = frame::encode(&opened).unwrap_or_default();
    if writer.write_all(&reply).await.is_err() {
        return;
    }
    let Some((end, exit)) = found else { return };
    // A broken connection is no error of the agent's.
    let _ = match end {
        End::Input(pipe) => input(reader, pipe).await,
        End::Output(pipe) => output(&mut writer, pipe, exit).await,
        End::Terminal(terminal) => {
            tokio::select! {
                // The terminal ends with its process, not with the host's input.
                outcome = terminal_output(&mut writer, &terminal, exit) => outcome,
                _ = async {
                    let _ = terminal_input(reader, &terminal).await;
                    std::future::pending::<()>().await
                } => Ok(()),
            }
        }
    };
    let _ = writer.shutdown().await;
}

/// Host to process. The pipe closes when the host ends this direction, or is gone.
async fn input(mut reader: impl AsyncRead + Unpin, mut pipe: pipe::Sender) -> io::Result<()> {
    let mut chunk = Vec::new();
    while read_chunk(&mut reader, &mut chunk).await? {
        pipe.write_all(&chunk).await?;
    }
    Ok(())
}

/// Process to host, until the pipe's writers have all closed it. When the process has ended, others
/// that it has left behind may still have it open; the host is told when all is sent that the
/// process itself wrote.
async fn output(
    writer: &mut (impl AsyncWrite + Unpin),
    pipe: pipe::Receiver,
    exit: Exit,
) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    let (mut has_ended, mut told) = (false, false);
    let end = ended(exit);
    tokio::pin!(end);
    loop {
        // `try_read` goes by the readiness that the runtime has heard of, and news of the last
        // data may be still under way when the end is known. So then the pipe itself is asked.
        let read = if has_ended && !told {
            rustix::io::retry_on_intr(|| rustix::io::read(&pipe, &mut buffer[..]))
                .map_err(io::Error::from)
        } else {
            pipe.try_read(&mut buffer)
        };
        match read {
            Ok(0) => break,
            Ok(n) => write_chunk(writer, &buffer[..n]).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if has_ended && !told {
                    writer.write_all(&LAST_WORDS.to_be_bytes()).await?;
                    writer.flush().await?;
                    told = true;
                }
                tokio::select! {
                    ready = pipe.readable() => ready?,
                    _ = &mut end, if !has_ended => has_ended = true,
                }
            }
            Err(error) => return Err(error),
        }
    }
    writer.write_all(&[0, 0]).await?;
    writer.flush().await
}

async fn terminal_output(
    writer: &mut (impl AsyncWrite + Unpin),
    terminal: &AsyncFd<OwnedFd>,
    exit: Exit,
) -> io::Result<()> {
    let mut buffer = vec![0; 4 << 10];
    let mut has_ended = false;
    let end = ended(exit);
    tokio::pin!(end);
    loop {
        match rustix::io::read(terminal.get_ref(), &mut buffer[..]) {
            // EIO: nobody has the other side open any more (pty(7)).
            Ok(0) | Err(Errno::IO) if has_ended => break,
            Ok(0) | Err(Errno::IO) => {
                end.as_mut().await;
                has_ended = true;
            }
            Ok(n) => write_chunk(writer, &buffer[..n]).await?,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if has_ended => break,
            Err(Errno::AGAIN) => {
                tokio::select! {
                    ready = terminal.readable() => ready?.clear_ready(),
                    _ = &mut end => has_ended = true,
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    writer.write_all(&[0, 0]).await?;
    writer.flush().await
}

async fn terminal_input(
    mut reader: impl AsyncRead + Unpin,
    terminal: &AsyncFd<OwnedFd>,
) -> io::Result<()> {
    let mut chunk = Vec::new();
    while read_chunk(&mut reader, &mut chunk).await? {
        let mut rest = chunk.as_slice();
        while !rest.is_empty() {
            let written = terminal
                .async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd.as_fd(), rest)?))
                .await?;
            rest = &rest[written..];
        }
    }
    Ok(())
}

async fn write_chunk(writer: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> io::Result<()> {
    for part in data.chunks(MAX_CHUNK) {
        let mut chunk = Vec::with_capacity(2 + part.len());
        chunk.extend_from_slice(&(part.len() as u16).to_be_bytes());
        chunk.extend_from_slice(part);
        writer.write_all(&chunk).await?;
    }
    Ok(())
}

/// False at the end of the direction.
async fn read_chunk(
    reader: &mut (impl AsyncRead + Unpin),
    chunk: &mut Vec<u8>,
) -> io::Result<bool> {
    let length = reader.read_u16().await?;
    chunk.resize(usize::from(length), 0);
    reader.read_exact(chunk).await?;
    Ok(length > 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runhcs_compute::ExitStatus;
    use tokio::sync::watch;

    use super::*;

    /// The end of a process may be known before the runtime has heard of its last words.
    #[tokio::test(flavor = "current_thread")]
    async fn last_words_are_not_lost() {
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).expect("make a pipe");
        let pipe = pipe::Receiver::from_owned_fd(read).expect("watch the pipe");
        let (end, exit) = watch::channel(None);
        let mut sent = Vec::new();
        {
            let output = output(&mut sent, pipe, exit);
            tokio::pin!(output);
            // It has found the pipe empty and waits.
            let waited = tokio::time::timeout(Duration::from_millis(20), &mut output).await;
            assert!(waited.is_err(), "it ended with the process running");
            // Nothing in here lets the runtime look at its descriptors.
            rustix::io::write(&write, b"last words").expect("write to the pipe");
            end.send_replace(Some(ExitStatus::Exited(0)));
            // Somebody else has the pipe.
            let waited = tokio::time::timeout(Duration::from_millis(20), &mut output).await;
            assert!(waited.is_err(), "it ended with the pipe open");
            rustix::io::write(&write, b"more").expect("write to the pipe");
            drop(write);
            output.await.expect("pass the output on");
        }
        assert_eq!(sent, b"\x00\x0alast words\xff\xff\x00\x04more\x00\x00");
    }
}
