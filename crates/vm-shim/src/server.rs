//! The VM's socket: takes requests, many at a time, so that a slow one holds nobody up.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use runhcs_protocol::frame::{self, FrameError};
use runhcs_protocol::guest::{self, Failure};
use runhcs_protocol::shim::{Reply, Request};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::agent::NoReply;
use crate::attach;
use crate::frames::FrameReader;
use crate::pod::Pod;

/// How long a client may take to say what it wants.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may take to hear the answer.
const REPLY_DEADLINE: Duration = Duration::from_secs(10);
/// The most descriptors that one message can carry (`SCM_MAX_FD`, unix(7)).
const MAX_DESCRIPTORS: usize = 253;

/// Serves clients until dropped. A request to shut down is passed to `shutdown`.
pub async fn serve(listener: UnixListener, pod: Rc<Pod>, shutdown: mpsc::Sender<Client>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (pod, shutdown) = (pod.clone(), shutdown.clone());
                tokio::task::spawn_local(async move {
                    if let Err(error) = converse(stream, &pod, shutdown).await {
                        tracing::debug!(error = format!("{error:#}"), "a client failed");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: what is under way has to end first.
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A client's connection once it has said what it wants.
pub struct Client {
    /// More from it.
    pub reader: FrameReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Client {
    /// The process at the other end (`SO_PEERCRED`, unix(7)).
    pub fn pid(&self) -> anyhow::Result<u32> {
        let socket: &UnixStream = self.writer.as_ref();
        let credentials = socket.peer_cred().context("cannot tell who the client is")?;
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok());
        pid.context("the client has no pid here")
    }

    /// Sends one message, with descriptors attached to its first byte.
    pub async fn send<T: serde::Serialize>(
        &mut self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> anyhow::Result<()> {
        let message = frame::encode(message)?;
        let sending = async {
            let socket: &UnixStream = self.writer.as_ref();
            let sent = socket
                .async_io(Interest::WRITABLE, || send_some(socket.as_fd(), &message, descriptors))
                .await?;
            self.writer.write_all(&message[sent..]).await
        };
        tokio::time::timeout(REPLY_DEADLINE, sending)
            .await
            .context("the client doesn't take its answer")?
            .context("the client has gone away")
    }
}

async fn converse(
    stream: UnixStream,
    pod: &Rc<Pod>,
    shutdown: mpsc::Sender<Client>,
) -> anyhow::Result<()> {
    let peer = stream.peer_cred()?.uid();
    ensure!(peer == rustix::process::geteuid().as_raw(), "a client of user {peer} is refused");
    let receiving = tokio::time::timeout(REQUEST_DEADLINE, receive(stream));
    let (request, descriptors, mut client) = receiving.await.context("a silent client")??;
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            return client.send(&Reply::Failed(Failure::from_error(&error)), &[]).await;
        }
    };
    let reply = match request {
        Request::Info => Reply::Info(pod.info.clone()),
        Request::CreateContainer(create) => {
            tracing::info!(container = %create.id, "creating a container");
            answer(pod.create(*create, descriptors).await)
        }
        Request::DeleteContainer(id) => {
            tracing::info!(container = %id, "deleting a container");
            answer(pod.delete(&id).await)
        }
        Request::StandIns(id) => Reply::StandIns(pod.stand_ins(&id)),
        Request::Attach(process) => return attach::run(client, pod.clone(), process).await,
        Request::Guest(request) => answer(pod.forward(request).await),
        Request::SyncNetwork => answer(pod.sync_network().await),
        Request::Shutdown => {
            // If the VM is ending already, whoever asked sees the connection end.
            let _ = shutdown.send(client).await;
            return Ok(());
        }
    };
    client.send(&reply, &[]).await
}

/// What a client hears of the agent's answer.
pub fn answer(result: Result<guest::Reply, NoReply>) -> Reply {
    match result {
        Ok(reply) => Reply::Guest(reply),
        Err(NoReply::Ended(end)) => Reply::VmEnded(end),
        Err(NoReply::Failed(failure)) => Reply::Guest(guest::Reply::Failed(failure)),
    }
}

type Received = (Result<Request, FrameError>, Vec<OwnedFd>, Client);

async fn receive(stream: UnixStream) -> anyhow::Result<Received> {
    let mut start = vec![0; 4096];
    let mut descriptors = Vec::new();
    let received = stream
        .async_io(Interest::READABLE, || receive_some(stream.as_fd(), &mut start, &mut descriptors))
        .await
        .context("cannot receive a request")?;
    start.truncate(received);
    let (reader, writer) = stream.into_split();
    let mut client =
        Client { reader: FrameReader::after(start, reader, frame::MAX_REQUEST), writer };
    let request = match client.reader.next().await {
        Ok(Some(request)) => Ok(request),
        Ok(None) => Err(FrameError::Truncated),
        Err(error) => Err(error),
    };
    Ok((request, descriptors, client))
}

fn receive_some(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let message = recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            descriptors.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("descriptors were lost; the limit of open files is too low"));
    }
    Ok(message.bytes)
}

fn send_some(
    socket: BorrowedFd<'_>,
    data: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let parts = [io::IoSlice::new(data)];
    Ok(sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?)
}

/// A listener of the standard library's as one of tokio's.
pub fn listener(listener: std::os::unix::net::UnixListener) -> anyhow::Result<UnixListener> {
    ensure!(sockopt::socket_acceptconn(&listener)?, "the VM's socket doesn't listen");
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from_std(listener)?)
}
