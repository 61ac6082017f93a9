//! A caller of the service: the library for the programs under test, and the tests themselves.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::hresult;
use crate::wire::{Call, CallRecord, Control, Event, Message, Reply, Request, Snapshot, What};

/// What is done with a reply, in the thread that reads replies.
type Then = Box<dyn FnOnce(Reply) + Send>;

/// A connection to the service.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    stream: Mutex<TcpStream>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    calls: HashMap<u64, Then>,
    gone: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to a service. Its events come out of the receiver.
    ///
    /// # Errors
    /// If there is no service at this address.
    pub fn connect(address: &str) -> io::Result<(Self, Receiver<Event>)> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let reader = BufReader::new(stream.try_clone()?);
        let shared = Arc::new(Shared {
            stream: Mutex::new(stream),
            waiting: Mutex::new(Waiting::default()),
        });
        let (sender, events) = mpsc::channel();
        let client = Self(shared);
        let own = client.clone();
        std::thread::spawn(move || own.read(reader, &sender));
        Ok((client, events))
    }

    fn read(&self, reader: BufReader<TcpStream>, events: &Sender<Event>) {
        for line in reader.lines() {
            let Ok(line) = line else { break };
            match serde_json::from_str(&line) {
                Ok(Message::Reply(reply)) => {
                    let then = self.waiting().calls.remove(&reply.number);
                    if let Some(then) = then {
                        then(reply);
                    }
                }
                // Nobody may be interested in events.
                Ok(Message::Event(event)) => drop(events.send(event)),
                Err(_) => break,
            }
        }
        let calls = {
            let mut waiting = self.waiting();
            waiting.gone = true;
            std::mem::take(&mut waiting.calls)
        };
        for (number, then) in calls {
            then(disconnected(number));
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call; something is done with its reply when that comes.
    pub fn send(&self, what: What, then: impl FnOnce(Reply) + Send + 'static) {
        let number = {
            let mut waiting = self.waiting();
            if waiting.gone {
                drop(waiting);
                return then(disconnected(0));
            }
            waiting.last += 1;
            let number = waiting.last;
            waiting.calls.insert(number, Box::new(then));
            number
        };
        let request = Request { number, caller: std::process::id(), what };
        let mut line = serde_json::to_string(&request).unwrap_or_default();
        line.push('\n');
        let mut stream = self.0.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = stream.write_all(line.as_bytes());
        drop(stream);
        let lost = if sent.is_err() { self.waiting().calls.remove(&number) } else { None };
        if let Some(then) = lost {
            then(disconnected(number));
        }
    }

    /// Makes a call and waits for its reply, for ever if the call hangs.
    pub fn call(&self, call: Call) -> Reply {
        self.wait(What::Call(call))
    }

    fn wait(&self, what: What) -> Reply {
        let (sender, receiver) = mpsc::channel();
        self.send(what, move |reply| drop(sender.send(reply)));
        receiver.recv().unwrap_or_else(|_| disconnected(0))
    }

    /// Tells the stand-in something.
    ///
    /// # Errors
    /// If it doesn't want to know.
    pub fn control(&self, control: Control) -> anyhow::Result<Option<String>> {
        let reply = self.wait(What::Control(control));
        if reply.result.is_failure() {
            anyhow::bail!("{}: {}", reply.result, reply.document.unwrap_or_default());
        }
        Ok(reply.document)
    }

    /// What there is now.
    ///
    /// # Errors
    /// If the service has gone.
    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let document = self.control(Control::Snapshot)?.unwrap_or_default();
        Ok(serde_json::from_str(&document)?)
    }

    /// The calls since the last time.
    ///
    /// # Errors
    /// If the service has gone.
    pub fn calls(&self) -> anyhow::Result<Vec<CallRecord>> {
        let document = self.control(Control::Calls)?.unwrap_or_default();
        Ok(serde_json::from_str(&document)?)
    }

    /// Makes calls go wrong, in the format of [`crate::faults`]; those before are forgotten.
    ///
    /// # Errors
    /// If a text is not a fault.
    pub fn faults(&self, faults: &[&str]) -> anyhow::Result<()> {
        let faults = faults.iter().map(|&fault| fault.to_owned()).collect();
        self.control(Control::Faults(faults)).map(drop)
    }
}

fn disconnected(number: u64) -> Reply {
    let result = hresult::SERVICE_DISCONNECT;
    Reply { number, result, document: None, process: None }
}
