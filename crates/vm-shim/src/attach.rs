//! Handing a process's stdio to a client, and standing between the two until the process has
//! ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use runhcs_compute::{ExitStatus, Scope, Signal};
use runhcs_protocol::STREAM_PORT;
use runhcs_protocol::frame::{self, HEADER};
use runhcs_protocol::guest::{self, Failure, ProcessKey, Request};
use runhcs_protocol::shim::{AttachedEvent, AttachedRequest, Reply};
use runhcs_protocol::stream::{Open, Opened, Stream};
use runhcs_uvm::deadline;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::agent::NoReply;
use crate::pod::Pod;
use crate::replies;
use crate::server::Client;

/// How long the guest agent may take to connect a stream.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// Attaches `client` to a process and stays until the process, or the client, has ended.
pub async fn run(mut client: Client, pod: Rc<Pod>, process: ProcessKey) -> anyhow::Result<()> {
    let terminal = match pod.claim(&process, client.pid()?) {
        Ok(terminal) => terminal,
        Err(failure) => return client.send(&Reply::Failed(failure), &[]).await,
    };
    let streams: &[Stream] = if terminal {
        &[Stream::Terminal]
    } else {
        &[Stream::Stdin, Stream::Stdout, Stream::Stderr]
    };
    let mut sockets = Vec::new();
    for stream in streams {
        let open = Open { process: process.clone(), stream: *stream };
        let opened = tokio::select! {
            opened = tokio::time::timeout(OPEN_DEADLINE, connect(&pod, &open)) => opened,
            end = pod.ending.declared() => {
                return client.send(&Reply::VmEnded(end), &[]).await;
            }
        };
        let failure = match opened {
            Ok(Ok(socket)) => {
                sockets.push(socket);
                continue;
            }
            Ok(Err(error)) => Failure::from_error(error.as_ref()),
            Err(_) => Failure::Other(vec![format!(
                "the guest agent didn't connect {stream:?} of {process} within {} s",
                OPEN_DEADLINE.as_secs()
            )]),
        };
        return client.send(&Reply::Failed(failure), &[]).await;
    }
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    client.send(&Reply::Attached { terminal }, &descriptors).await?;
    // From here on the client's are the only ones, so the streams end when it closes them.
    drop(descriptors);
    drop(sockets);
    attend(client, &pod, &process).await
}

/// Connects one stream.
async fn connect(pod: &Pod, open: &Open) -> anyhow::Result<std::os::unix::net::UnixStream> {
    let what = || format!("cannot connect {:?} of {}", open.stream, open.process);
    let socket = pod.dialer.dial(STREAM_PORT).with_context(what)?;
    socket.set_nonblocking(true)?;
    let mut socket = UnixStream::from_std(socket)?;
    socket.write_all(&frame::encode(open)?).await.with_context(what)?;
    // Read exactly this one frame: what follows belongs to the client.
    let mut header = [0; HEADER];
    match socket.read_exact(&mut header).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(anyhow::anyhow!("the guest agent takes no streams").context(what()));
        }
        Err(error) => return Err(error).with_context(what),
    }
    let mut body = vec![0; frame::body_length(header, frame::MAX_REPLY)?];
    socket.read_exact(&mut body).await.with_context(what)?;
    let opened = frame::decode::<Opened>(&body).with_context(what)?;
    opened.map_err(replies::presentable).with_context(what)?;
    Ok(socket.into_std()?)
}

/// Passes on what the client asks for until the process has ended. A client that goes away first
/// takes the process with it.
async fn attend(mut client: Client, pod: &Rc<Pod>, process: &ProcessKey) -> anyhow::Result<()> {
    let wait = Request::WaitProcess(process.clone());
    let waiting = pod.agent.ask(&wait);
    tokio::pin!(waiting);
    let mut present = true;
    let ended = loop {
        tokio::select! {
            reply = &mut waiting => break reply,
            request = client.reader.next::<AttachedRequest>(), if present => {
                let request = match request {
                    Ok(Some(AttachedRequest::Signal(signal))) => signal_process(process, signal),
                    Ok(Some(AttachedRequest::Resize(size))) => {
                        Request::ResizeTerminal { process: process.clone(), size }
                    }
                    Ok(None) | Err(_) => {
                        present = false;
                        tracing::info!(%process, "its client is gone; killing it");
                        signal_process(process, Signal::KILL)
                    }
                };
                ask_in_passing(pod.clone(), request);
            }
        }
    };
    let event = match ended {
        Ok(guest::Reply::Exited(status)) => AttachedEvent::Exited(status),
        Err(NoReply::Ended(end)) => AttachedEvent::VmEnded(end),
        Ok(reply) => {
            tracing::warn!(%process, ?reply, "the guest agent's answer makes no sense");
            AttachedEvent::Exited(ExitStatus::Signaled(Signal::KILL.number()))
        }
        // Nobody knows how it ended, or whether it has; it is as good as killed.
        Err(NoReply::Failed(failure)) => {
            tracing::warn!(%process, %failure, "cannot wait for a process");
            AttachedEvent::Exited(ExitStatus::Signaled(Signal::KILL.number()))
        }
    };
    tracing::debug!(%process, ?event, "ended");
    let told = if present { client.send(&event, &[]).await } else { Ok(()) };
    pod.forget(process).await;
    if let Err(error) = told {
        bail!("{process} has ended, but its client didn't hear it: {error:#}");
    }
    Ok(())
}

fn signal_process(process: &ProcessKey, signal: Signal) -> Request {
    Request::SignalProcess { process: process.clone(), signal, scope: Scope::Init }
}

/// Asks the agent for something whose failure concerns nobody but the log.
fn ask_in_passing(pod: Rc<Pod>, request: Request) {
    tokio::task::spawn_local(async move {
        match pod.agent.call(&request, deadline::of(&request)).await {
            Ok(_) | Err(NoReply::Ended(_)) => {}
            // Signals and sizes often come when the process has just ended.
            Err(NoReply::Failed(failure)) => tracing::debug!(?request, %failure, "not passed on"),
        }
    });
}
