//! The guest agent as the shim sees it: requests over one connection, answered in any order.
//!
//! The agent runs in the guest, so nothing it says is trusted, and nothing waits for it without a
//! deadline, but for the end of a process. Whoever waits for long asks now and then whether the
//! agent is there at all: a guest that hangs is told from one that is busy.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use runhcs_protocol::frame;
use runhcs_protocol::guest::{Envelope, Failure, FromAgent, Hello, Reply, Request};
use runhcs_protocol::shim::VmEnd;
use runhcs_protocol::template::Wake;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use crate::agent_log;
use crate::ending::Ending;
use crate::frames::FrameReader;
use crate::replies;

/// Requests that may wait to be written; whoever adds another one waits.
const OUTGOING: usize = 64;
/// How long the agent, which answers a ping at once, may be silent while it is waited for. The
/// guest may run on a translator, on a busy host.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same for an agent that has been silent that long.
const IMPATIENCE: Duration = Duration::from_secs(2);
/// How often it is pinged while it is waited for.
const PING_EVERY: Duration = Duration::from_secs(5);

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
    // Shown to whoever asks about the VM.
    let hello = Hello { kernel: agent_log::printable(&hello.kernel), ..hello };
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
    /// When anything came from the agent last.
    heard: Cell<Instant>,
    /// Whether it has been silent for too long.
    hangs: Cell<bool>,
    ending: Ending,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum NoReply {
    /// The VM is gone, and how.
    Ended(VmEnd),
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
    /// Starts the conversation. Losing the connection ends the VM: `ending` hears of it.
    pub fn start(greeted: Greeted, ending: Ending) -> Self {
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let inner = Inner {
            outgoing,
            open: RefCell::default(),
            next: Cell::new(1),
            heard: Cell::new(Instant::now()),
            hangs: Cell::new(false),
            ending: ending.clone(),
        };
        let agent = Self(Rc::new(inner));
        let reading = agent.clone().read(greeted.reader);
        let writing = write(greeted.writer, queue);
        tokio::task::spawn_local(async move {
            let error = tokio::select! {
                error = reading => error,
                error = writing => error,
            };
            ending.suspect(format!("the connection to the guest agent was lost: {error:#}"));
        });
        agent
    }

    /// Asks, and waits for the answer for as long as `deadline`, if the agent shows that it is
    /// there, and not for long if it doesn't.
    ///
    /// # Errors
    /// A failure the agent reports is one here.
    pub async fn call(&self, request: &Request, deadline: Duration) -> Result<Reply, NoReply> {
        let inner = &*self.0;
        let asked = Instant::now();
        let patience = if inner.hangs.get() { IMPATIENCE } else { PATIENCE };
        if inner.hangs.get() {
            self.ping();
        }
        let asking = self.ask(request);
        tokio::pin!(asking);
        loop {
            let silence_ends = inner.heard.get().max(asked) + patience;
            let turn = (Instant::now() + PING_EVERY).min(silence_ends).min(asked + deadline);
            if let Ok(reply) = tokio::time::timeout_at(turn.into(), &mut asking).await {
                return reply;
            }
            let now = Instant::now();
            if inner.heard.get().max(asked) + patience <= now {
                if !inner.hangs.replace(true) {
                    tracing::error!(request = request.name(), "the guest doesn't answer any more");
                }
                let silent = now - inner.heard.get();
                return Err(failed(format!(
                    "the guest agent hasn't answered anything for {} s; the virtual machine hangs, \
                     or its host is overloaded",
                    silent.as_secs()
                )));
            }
            if now >= asked + deadline {
                return Err(failed(format!(
                    "the guest agent lives, but hasn't done it within {} s",
                    deadline.as_secs()
                )));
            }
            self.ping();
        }
    }

    /// Asks for a sign of life, if there is room to ask.
    fn ping(&self) {
        let inner = &*self.0;
        let id = inner.next.get();
        if let Ok(message) = frame::encode(&Envelope { id, body: &Request::Ping })
            && inner.outgoing.try_send(message).is_ok()
        {
            inner.next.set(id + 1);
        }
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
            end = inner.ending.declared() => return Err(NoReply::Ended(end)),
        };
        match replies::check(request, reply) {
            Ok(Reply::Failed(failure)) => Err(NoReply::Failed(failure)),
            Ok(reply) => Ok(reply),
            Err(nonsense) => {
                tracing::warn!(request = request.name(), "{nonsense}");
                Err(failed(nonsense.to_string()))
            }
        }
    }

    async fn read(self, mut reader: FrameReader<OwnedReadHalf>) -> anyhow::Error {
        loop {
            let message = match reader.expect::<FromAgent>().await {
                Ok(message) => message,
                Err(error) => return error,
            };
            let inner = &*self.0;
            inner.heard.set(Instant::now());
            if inner.hangs.replace(false) {
                tracing::warn!("the guest answers again");
            }
            // A guest that talks without end must not keep others from their turns.
            tokio::task::yield_now().await;
            let Envelope { id, body } = match message {
                FromAgent::Reply(reply) => reply,
                FromAgent::Log(line) => {
                    agent_log::write(&line);
                    continue;
                }
            };
            if id >= inner.next.get() {
                return anyhow!("it answered question {id}, which nobody has asked");
            }
            // Whoever asked may have gone meanwhile, and pings are nobody's.
            if let Some(waiting) = inner.open.borrow_mut().remove(&id) {
                let _ = waiting.send(body);
            }
        }
    }
}

fn failed(message: String) -> NoReply {
    NoReply::Failed(Failure::Other(vec![message]))
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
