//! The control connection: requests from the host, each served by a task of its own, answered in
//! whatever order they are done.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use runhcs_protocol::agent_log::LogLine;
use runhcs_protocol::frame;
use runhcs_protocol::guest::{Envelope, Failure, FromAgent, Hello, Reply, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::server::Server;
use crate::{hardware, network, processes, reaper};

/// Greets the host and serves it until it hangs up.
pub async fn serve(
    server: Rc<Server>,
    hello: Hello,
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin + 'static,
    mut lines: mpsc::Receiver<LogLine>,
) -> Result<()> {
    writer.write_all(&frame::encode(&hello)?).await.context("greet the host")?;
    let (replies, mut outgoing) = mpsc::unbounded_channel::<Envelope<Reply>>();
    tokio::task::spawn_local(async move {
        loop {
            let message = tokio::select! {
                // Somebody waits for an answer.
                biased;
                Some(reply) = outgoing.recv() => FromAgent::Reply(reply),
                Some(line) = lines.recv() => FromAgent::Log(line),
                else => return,
            };
            let Ok(bytes) = frame::encode(&message) else { continue };
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    while let Some(envelope) = read::<Envelope<Request>>(&mut reader, frame::MAX_REQUEST).await? {
        let (server, replies) = (Rc::clone(&server), replies.clone());
        tokio::task::spawn_local(async move {
            let body = logged(&server, envelope.body).await.unwrap_or_else(Reply::Failed);
            // Nobody is left to hear it if the host has hung up.
            let _ = replies.send(Envelope { id: envelope.id, body });
        });
    }
    Ok(())
}

/// Receives one message; `None` if the connection has ended before it.
pub async fn read<T: serde::de::DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<Option<T>> {
    let mut header = [0; frame::HEADER];
    match reader.read_exact(&mut header).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other.context("hear from the host")?,
    };
    let mut body = vec![0; frame::body_length(header, limit)?];
    reader.read_exact(&mut body).await.context("hear from the host")?;
    Ok(Some(frame::decode(&body)?))
}

async fn logged(server: &Rc<Server>, request: Request) -> Result<Reply, Failure> {
    let (name, container) = (request.name(), request.container().cloned());
    let started = Instant::now();
    let outcome = answer(server, request).await;
    let container = container.as_ref().map(tracing::field::display);
    let elapsed = started.elapsed();
    match &outcome {
        Ok(Reply::Exited(status)) => tracing::debug!(container, ?elapsed, ?status, "{name}"),
        Ok(Reply::Process { pid, .. }) => tracing::debug!(container, ?elapsed, pid, "{name}"),
        Ok(_) => tracing::debug!(container, ?elapsed, "{name}"),
        Err(failure) => tracing::info!(container, ?elapsed, "{name}: {failure}"),
    }
    outcome
}

async fn answer(server: &Rc<Server>, request: Request) -> Result<Reply, Failure> {
    let done = |()| Reply::Done;
    match request {
        Request::CreateContainer(create) => {
            let pid = server.create(*create).await?;
            Ok(Reply::Process { exec: None, pid })
        }
        Request::StartContainer(id) => server.start(&id).await.map(done),
        Request::CreateProcess(create) => {
            let (exec, pid) = server.exec(*create).await?;
            Ok(Reply::Process { exec: Some(exec), pid })
        }
        Request::WaitProcess(key) => {
            let exit = server.process(&key)?.exit.clone();
            Ok(Reply::Exited(reaper::ended(exit).await))
        }
        Request::SignalProcess { process, signal, scope } => {
            server.signal(&process, signal, scope).await.map(done)
        }
        Request::ResizeTerminal { process, size } => server.resize(&process, size).map(done),
        Request::ContainerStatus(id) => server.status(&id).map(Reply::Status),
        Request::ListProcesses(id) => server.processes(&id).map(Reply::Processes),
        Request::DescribeProcesses(describe) => {
            let pids = server.processes(&describe.container)?;
            Ok(Reply::ProcessTable(Box::new(processes::describe(pids, describe.after)?)))
        }
        Request::PauseContainer(id) => server.freeze(&id, true).await.map(done),
        Request::ResumeContainer(id) => server.freeze(&id, false).await.map(done),
        Request::UpdateContainer(update) => server.update(*update).await.map(done),
        Request::ContainerStats(id) => {
            server.stats(&id).await.map(|stats| Reply::Stats(Box::new(stats)))
        }
        Request::WaitOom(wait) => server.wait_oom(wait).await.map(Reply::Oom),
        Request::DeleteContainer(id) => server.delete(&id).await.map(done),
        Request::DeleteProcess(key) => server.forget(&key).map(done),
        Request::ConfigureNetwork(network) => match network::configure(*network).await {
            Ok(()) => Ok(Reply::Done),
            Err(error) => Err(Failure::from_error(error.as_ref())),
        },
        Request::UseHardware(wanted) => match hardware::take_into_use(wanted).await {
            Ok(()) => Ok(Reply::Done),
            Err(error) => Err(Failure::from_error(error.as_ref())),
        },
        Request::Ping => Ok(Reply::Done),
        Request::Sync => {
            rustix::fs::sync();
            Ok(Reply::Done)
        }
    }
}
