//! The guest agent as the shim sees it: requests over one connection, answered in any order.
//!
//! The agent runs in the guest, so nothing it says is trusted, and nothing waits for it without a
//! deadline, but for the end of a process.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use runhcs_protocol::frame;
use runhcs_protocol::guest::{Envelope, Failure, FromAgent, Hello, Reply, Request};
use runhcs_protocol::template::Wake;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use crate::agent_log;
use crate::frames::FrameReader;
use crate::lost::Lost;

/// Requests that may wait to be written; whoever adds another one waits.
const OUTGOING: usize = 64;

/// A connection to the agent on which nothing has been asked yet.
pub struct Greeted {
    /// What it said of itself.
    pub hello: Hello,
    reader: FrameReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// Waits for the agent's greeting.
///
/// # Errors
/// If it isn't one, or of another version of the protocol.
pub async fn greet(socket: StdUnixStream) -> anyhow::Result<Greeted> {
    socket.set_nonblocking(true)?;
    let (reader, writer) = UnixStream::from_std(socket)?.into_split();
    let mut reader = FrameReader::new(reader, frame::MAX_REPLY);
    let hello: Hello =
        reader.expect().await.context("the guest agent connected but didn't say hello")?;
    if hello.version != runhcs_protocol::VERSION {
        bail!(
            "the guest agent speaks version {} of the protocol, this VM shim version {}; build the \
             guest image again with `runhcs-guest-image build`",
            hello.version,
            runhcs_protocol::VERSION
        );
    }
    Ok(Greeted { hello, reader, writer })
}

/// Tells the agent of a resumed VM what makes it one of its own, and waits until it has begun
/// anew.
///
/// # Errors
/// If it hangs up, or greets in another way than before.
pub async fn wake(greeted: Greeted, wake: &Wake) -> anyhow::Result<Greeted> {
    let Greeted { hello: first, mut reader, mut writer } = greeted;
    writer.write_all(&frame::encode(wake)?).await.context("the guest agent doesn't listen")?;
    let hello: Hello = reader.expect().await.context("the guest agent didn't wake up")?;
    ensure!(hello == first, "the guest agent is another one since it woke up");
    Ok(Greeted { hello, reader, writer })
}

/// Asks the agent.
#[derive(Clone)]
pub struct Agent(Rc<Inner>);

struct Inner {
    outgoing: mpsc::Sender<Vec<u8>>,
    open: RefCell<HashMap<u64, oneshot::Sender<Reply>>>,
    next: Cell<u64>,
    lost: Lost,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum NoReply {
    /// The VM is gone, and why.
    Lost(String),
    /// The agent failed, or didn't answer in time.
    Failed(Failure),
}

/// An open request; forgotten when dropped.
struct Open<'a> {
    inner: &'a Inner,
    id: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.inner.open.borrow_mut().remove(&self.id);
    }
}

impl Agent {
    /// Starts the conversation. Losing the connection ends the VM: `lost` is told.
    pub fn start(greeted: Greeted, lost: Lost) -> Self {
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let inner =
            Inner { outgoing, open: RefCell::default(), next: Cell::new(1), lost: lost.clone() };
        let agent = Self(Rc::new(inner));
        let reading = agent.clone().read(greeted.reader);
        let writing = write(greeted.writer, queue);
        tokio::task::spawn_local(async move {
            let error = tokio::select! {
                error = reading => error,
                error = writing => error,
            };
            lost.declare(format!("the connection to the guest agent was lost: {error:#}"));
        });
        agent
    }

    /// Asks, and waits for the answer for as long as `deadline`.
    ///
    /// # Errors
    /// A failure the agent reports is one here.
    pub async fn call(&self, request: &Request, deadline: Duration) -> Result<Reply, NoReply> {
        tokio::time::timeout(deadline, self.ask(request)).await.unwrap_or_else(|_| {
            Err(NoReply::Failed(Failure::Other(vec![format!(
                "the guest agent didn't answer within {} s; the virtual machine may hang",
                deadline.as_secs()
            )])))
        })
    }

    /// Asks, and waits for the answer until the VM ends.
    pub async fn ask(&self, request: &Request) -> Result<Reply, NoReply> {
        let inner = &*self.0;
        let id = inner.next.get();
        inner.next.set(id + 1);
        let (sender, receiver) = oneshot::channel();
        inner.open.borrow_mut().insert(id, sender);
        let _open = Open { inner, id };
        let message = frame::encode(&Envelope { id, body: request })
            .map_err(|error| NoReply::Failed(Failure::from_error(&error)))?;
        let answered = async {
            inner.outgoing.send(message).await.ok()?;
            receiver.await.ok()
        };
        let reply = tokio::select! {
            Some(reply) = answered => reply,
            reason = inner.lost.wait() => return Err(NoReply::Lost(reason)),
        };
        match reply {
            Reply::Failed(failure) => Err(NoReply::Failed(failure)),
            reply => Ok(reply),
        }
    }

    async fn read(self, mut reader: FrameReader<OwnedReadHalf>) -> anyhow::Error {
        loop {
            let Envelope { id, body } = match reader.expect::<FromAgent>().await {
                Ok(FromAgent::Reply(reply)) => reply,
                Ok(FromAgent::Log(line)) => {
                    agent_log::write(&line);
                    continue;
                }
                Err(error) => return error,
            };
            match self.0.open.borrow_mut().remove(&id) {
                // Whoever asked may have gone meanwhile.
                Some(waiting) => drop(waiting.send(body)),
                None => tracing::debug!(id, "an answer nobody waits for"),
            }
        }
    }
}

async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) -> anyhow::Error {
    while let Some(message) = queue.recv().await {
        if let Err(error) = writer.write_all(&message).await {
            return error.into();
        }
    }
    // The sender lives in the agent, which the reading half holds.
    anyhow::anyhow!("nobody is left to ask")
}
