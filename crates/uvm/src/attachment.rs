//! Standing in on the host for a process that runs in the VM.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use runhcs_compute::{Error, ExitStatus, Result, Signal};
use runhcs_protocol::frame::{self, FrameError, HEADER, MAX_REPLY};
use runhcs_protocol::guest::{ProcessKey, TerminalSize};
use runhcs_protocol::shim::{AttachedEvent, AttachedRequest, VmEnd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::pump::{Inbound, Local, OutState, Outbound, Wait};
use crate::signals::Caught;

/// Once the process has ended, the rest of its output is waited for as long as something comes at
/// least this often. The guest says when it has sent all.
const SILENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// A process in the VM whose stdio this process holds.
#[derive(Debug)]
pub struct Attachment {
    process: ProcessKey,
    control: UnixStream,
    streams: Streams,
    signals: Caught,
}

/// Connections to the process's stdio.
#[derive(Debug)]
enum Streams {
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(OwnedFd),
}

/// The host's end of a process's stdio.
#[derive(Clone, Copy, Debug)]
pub enum LocalStdio<'a> {
    /// Three descriptors.
    Pipes {
        /// Read from.
        stdin: BorrowedFd<'a>,
        /// Written to.
        stdout: BorrowedFd<'a>,
        /// Written to.
        stderr: BorrowedFd<'a>,
    },
    /// A terminal in raw mode.
    Terminal(BorrowedFd<'a>),
}

impl Attachment {
    pub(crate) fn new(
        process: ProcessKey,
        terminal: bool,
        control: UnixStream,
        descriptors: Vec<OwnedFd>,
        signals: Caught,
    ) -> Result<Self> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next();
        let streams = if terminal {
            next().map(Streams::Terminal)
        } else {
            match (next(), next(), next()) {
                (Some(stdin), Some(stdout), Some(stderr)) => {
                    Some(Streams::Pipes { stdin, stdout, stderr })
                }
                _ => None,
            }
        };
        let streams = streams.ok_or_else(|| {
            Error::failed(format!("cannot attach to {process}"), "the VM shim sent too few streams")
        })?;
        Ok(Self { process, control, streams, signals })
    }

    /// Whether the process has a terminal.
    pub fn terminal(&self) -> bool {
        matches!(self.streams, Streams::Terminal(_))
    }

    /// Stands in for the process until it has ended: copies stdio both ways with back-pressure
    /// and half-close, passes on every signal this process receives that can be passed on, and
    /// the size of `terminal` whenever it changes. Returns when the process has ended and all
    /// its own output is written.
    pub fn run(self, stdio: LocalStdio<'_>) -> Result<Ended<'_>> {
        let Self { process, control, streams, signals } = self;
        let failed =
            |error: io::Error| Error::failed(format!("cannot carry the stdio of {process}"), error);
        let mut copies = copies(streams, stdio).map_err(failed)?;
        let terminal = match stdio {
            LocalStdio::Terminal(terminal) => Some(terminal),
            LocalStdio::Pipes { .. } => None,
        };
        let mut control = Control { stream: control, received: Vec::new() };
        if let Some(terminal) = terminal {
            control.resize(terminal).map_err(failed)?;
        }
        let mut ended = None;
        loop {
            if let Some(status) = ended
                && copies.iter().all(Copy::is_complete)
            {
                return Ok(Ended { status, left_behind: LeftBehind::of(copies) });
            }
            let ready = wait(&copies, &control, &signals, ended.is_some()).map_err(failed)?;
            let Some(ready) = ready else {
                // Only after the process has ended is there a limit to the wait.
                let status = ended.ok_or_else(|| failed(io::ErrorKind::TimedOut.into()))?;
                return Ok(Ended { status, left_behind: LeftBehind::of(copies) });
            };
            for (copy, ready) in copies.iter_mut().zip(&ready.copies) {
                copy.turn(*ready);
            }
            if ready.signals {
                while let Some(signal) = signals.next() {
                    match (terminal, signal) {
                        (Some(terminal), Signal::WINCH) => control.resize(terminal),
                        _ => control.send(&AttachedRequest::Signal(signal)),
                    }
                    .map_err(failed)?;
                }
            }
            if ready.control && ended.is_none() {
                ended = match control.event().map_err(failed)? {
                    Some(AttachedEvent::Exited(status)) => Some(status),
                    Some(AttachedEvent::VmEnded(VmEnd::ShutDown)) => {
                        return Ok(Ended::by_shutdown());
                    }
                    Some(AttachedEvent::VmEnded(VmEnd::Lost(reason))) => {
                        return Err(Error::failed(
                            format!("{process} was lost with its virtual machine"),
                            reason,
                        ));
                    }
                    None => None,
                };
            }
        }
    }
}

/// What is there when a process has ended.
#[derive(Debug)]
pub struct Ended<'a> {
    /// How it ended.
    pub status: ExitStatus,
    /// Output that others in the guest, which it has left behind, still have open.
    pub left_behind: Option<LeftBehind<'a>>,
}

/// Output that goes on although its process has ended: somebody else in the guest has it open, as
/// a child has it that was started in the background.
#[derive(Debug)]
pub struct LeftBehind<'a>(Vec<Copy<'a>>);

impl Ended<'_> {
    /// Shutting a VM down kills all that runs in it.
    fn by_shutdown() -> Self {
        Self { status: ExitStatus::Signaled(Signal::KILL.number()), left_behind: None }
    }
}

impl<'a> LeftBehind<'a> {
    fn of(mut copies: Vec<Copy<'a>>) -> Option<Self> {
        copies.retain(Copy::has_output);
        for copy in &mut copies {
            // What would be typed was the process's.
            copy.inbound = None;
        }
        (!copies.is_empty()).then_some(Self(copies))
    }

    /// Which of the caller's descriptors are needed for it. Of pipes and terminals it has its own.
    pub fn borrowed(&self) -> impl Iterator<Item = BorrowedFd<'a>> + '_ {
        self.0.iter().filter_map(|copy| copy.outbound.as_ref()?.borrowed())
    }

    /// Copies until nobody in the guest has the output open any more, or nobody here wants it.
    pub fn carry(mut self) -> io::Result<()> {
        while self.0.iter().any(Copy::has_output) {
            let waits: Vec<_> = self.0.iter().map(Copy::waits).collect();
            let mut fds: Vec<_> = waits.iter().flatten().flatten().map(poll_for).collect();
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut results = fds.iter().map(|fd| !fd.revents().is_empty());
            let mut is_ready =
                |wait: &Option<Wait<'_>>| wait.is_some() && results.next() == Some(true);
            let ready: Vec<_> = waits
                .iter()
                .map(|[inbound, outbound]| Ready {
                    inbound: is_ready(inbound),
                    outbound: is_ready(outbound),
                })
                .collect();
            drop(waits);
            for (copy, ready) in self.0.iter_mut().zip(ready) {
                copy.turn(ready);
            }
        }
        Ok(())
    }
}

fn poll_for<'a>((fd, events): &Wait<'a>) -> PollFd<'a> {
    PollFd::from_borrowed_fd(*fd, *events)
}

/// One connection and what is copied over it.
#[derive(Debug)]
struct Copy<'a> {
    /// `None` once nothing is copied any more.
    guest: Option<OwnedFd>,
    inbound: Option<Inbound<'a>>,
    outbound: Option<Outbound<'a>>,
}

/// Which of a [`Copy`]'s directions can go on.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    inbound: bool,
    outbound: bool,
}

impl Copy<'_> {
    /// Whether more output may come.
    fn has_output(&self) -> bool {
        self.guest.is_some() && self.outbound.is_some()
    }

    /// Whether all is written that the process itself wrote.
    fn is_complete(&self) -> bool {
        !self.has_output() || self.outbound.as_ref().is_none_or(Outbound::is_complete)
    }

    fn waits(&self) -> [Option<Wait<'_>>; 2] {
        let Some(guest) = &self.guest else { return [None, None] };
        let guest = guest.as_fd();
        [
            self.inbound.as_ref().and_then(|pump| pump.wait(guest)),
            self.outbound.as_ref().and_then(|pump| pump.wait(guest)),
        ]
    }

    fn turn(&mut self, ready: Ready) {
        let Some(guest) = &self.guest else { return };
        let guest = guest.as_fd();
        if let Some(pump) = &mut self.inbound
            && ready.inbound
        {
            pump.turn(guest);
            if pump.wait(guest).is_none() {
                self.inbound = None;
            }
        }
        let mut unwanted = false;
        if let Some(pump) = &mut self.outbound
            && ready.outbound
        {
            pump.turn(guest);
            unwanted = pump.state() == OutState::Unwanted;
            if pump.state() == OutState::Cut {
                tracing::warn!("the output of a process was cut off");
            }
            if pump.wait(guest).is_none() {
                self.outbound = None;
            }
        }
        // Closing it is what tells the process that nobody reads its output.
        if unwanted || (self.inbound.is_none() && self.outbound.is_none()) {
            self.guest = None;
        }
    }
}

fn copies<'a>(streams: Streams, stdio: LocalStdio<'a>) -> io::Result<Vec<Copy<'a>>> {
    let inbound = |fd| Ok::<_, io::Error>(Some(Inbound::new(Local::new(fd, false)?)));
    let outbound = |fd| Ok::<_, io::Error>(Some(Outbound::new(Local::new(fd, true)?)));
    match (streams, stdio) {
        (
            Streams::Pipes { stdin: to_in, stdout: from_out, stderr: from_err },
            LocalStdio::Pipes { stdin, stdout, stderr },
        ) => Ok(vec![
            Copy { guest: Some(to_in), inbound: inbound(stdin)?, outbound: None },
            Copy { guest: Some(from_out), inbound: None, outbound: outbound(stdout)? },
            Copy { guest: Some(from_err), inbound: None, outbound: outbound(stderr)? },
        ]),
        (Streams::Terminal(guest), LocalStdio::Terminal(terminal)) => Ok(vec![Copy {
            guest: Some(guest),
            inbound: inbound(terminal)?,
            outbound: outbound(terminal)?,
        }]),
        (Streams::Terminal(_), LocalStdio::Pipes { .. }) => {
            Err(io::Error::other("it has a terminal, and there is none here"))
        }
        (Streams::Pipes { .. }, LocalStdio::Terminal(_)) => {
            Err(io::Error::other("it has no terminal"))
        }
    }
}

/// What can go on.
struct AllReady {
    copies: Vec<Ready>,
    control: bool,
    signals: bool,
}

/// Waits until something can go on; after the process has ended, `None` if nothing does for a
/// while.
fn wait(
    copies: &[Copy<'_>],
    control: &Control,
    signals: &Caught,
    ended: bool,
) -> io::Result<Option<AllReady>> {
    let waits: Vec<[Option<Wait<'_>>; 2]> = copies.iter().map(Copy::waits).collect();
    let mut fds = vec![
        PollFd::from_borrowed_fd(signals.descriptor(), PollFlags::IN),
        PollFd::from_borrowed_fd(
            control.stream.as_fd(),
            // When the process has ended, the shim closes this; nothing more comes from it.
            if ended { PollFlags::empty() } else { PollFlags::IN },
        ),
    ];
    for (fd, events) in waits.iter().flatten().flatten() {
        fds.push(PollFd::from_borrowed_fd(*fd, *events));
    }
    if ended {
        // A closed socket is always ready.
        fds.remove(1);
    }
    let first = if ended { 1 } else { 2 };
    loop {
        match poll(&mut fds, ended.then_some(&SILENCE)) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut results = fds[first..].iter().map(|fd| !fd.revents().is_empty());
    let mut ready = |wait: &Option<Wait<'_>>| wait.is_some() && results.next().unwrap_or(false);
    Ok(Some(AllReady {
        copies: waits
            .iter()
            .map(|[inbound, outbound]| Ready { inbound: ready(inbound), outbound: ready(outbound) })
            .collect(),
        control: !ended && !fds[1].revents().is_empty(),
        signals: !fds[0].revents().is_empty(),
    }))
}

/// The conversation with the shim while attached.
struct Control {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Control {
    fn send(&mut self, request: &AttachedRequest) -> io::Result<()> {
        let message = frame::encode(request).map_err(io::Error::other)?;
        match self.stream.write_all(&message) {
            // It has just ended; the event that says so is on its way.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }

    fn resize(&mut self, terminal: BorrowedFd<'_>) -> io::Result<()> {
        // A terminal may have no size; then there is nothing to pass on.
        match rustix::termios::tcgetwinsize(terminal) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                let size = TerminalSize { width: size.ws_col, height: size.ws_row };
                self.send(&AttachedRequest::Resize(size))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The event, if it has come whole.
    fn event(&mut self) -> io::Result<Option<AttachedEvent>> {
        let mut buffer = [0; 4096];
        let length = match rustix::net::recv(&self.stream, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err(io::Error::other("it was lost with its VM shim")),
            Ok((_, length)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.received.extend_from_slice(&buffer[..length]);
        let decode = || -> std::result::Result<Option<AttachedEvent>, FrameError> {
            let Some(header) = self.received.first_chunk::<HEADER>() else { return Ok(None) };
            let length = frame::body_length(*header, MAX_REPLY)?;
            let body = self.received.get(HEADER..HEADER + length);
            body.map(frame::decode).transpose()
        };
        decode().map_err(io::Error::other)
    }
}

#[cfg(test)]
#[path = "attachment_tests.rs"]
mod tests;
