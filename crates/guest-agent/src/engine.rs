//! Engine calls in forked children: they may block, and the agent must not.

use std::io::Write;
use std::os::fd::OwnedFd;

use runhcs_compute::Error;
use runhcs_protocol::frame;
use runhcs_protocol::guest::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::requests;

/// Runs `call` in a child and returns its result. The child's own children become the agent's when
/// the child ends.
pub async fn run<T: Serialize + DeserializeOwned>(
    call: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Failure> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Failure::from_error(&error))?;
    // SAFETY: this process has one thread, so no lock is held by another.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(Failure::from_error(&std::io::Error::last_os_error()));
    }
    if pid == 0 {
        drop(reader);
        child(writer, call);
    }
    // The call's arguments (the container's ends of pipes among them) live on in the child only.
    drop(call);
    drop(writer);
    let failed = |error: std::io::Error| Failure::from_error(&error);
    let mut receiver = tokio::net::unix::pipe::Receiver::from_owned_fd(reader).map_err(failed)?;
    // A frame, not all until the end: a container's waiting init may hold the pipe open.
    let result = requests::read::<Result<T, Failure>>(&mut receiver, frame::MAX_REPLY).await;
    match result {
        Ok(Some(outcome)) => outcome,
        Ok(None) => Err(Failure::Other(vec!["the engine's process ended without a word".into()])),
        Err(error) => Err(Failure::from_error(error.as_ref())),
    }
}

/// Never returns into the agent's code.
fn child<T: Serialize>(writer: OwnedFd, call: impl FnOnce() -> Result<T, Error>) -> ! {
    let outcome = call().map_err(|error| failure(&error));
    if let Ok(frame) = frame::encode(&outcome) {
        let _ = std::fs::File::from(writer).write_all(&frame);
    }
    // SAFETY: _exit(2) has no preconditions; nothing of the agent's is flushed or freed twice.
    unsafe { libc::_exit(0) }
}

/// An engine's error, to travel.
pub fn failure(error: &Error) -> Failure {
    match error {
        Error::NotFound(_) => Failure::NotFound,
        Error::InvalidStatus { status, .. } => Failure::InvalidStatus(*status),
        Error::Unsupported(why) => Failure::Unsupported(why.clone()),
        other => Failure::from_error(other),
    }
}
