//! How long the service may take, and an end for calls that have none of their own.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::Result;
use crate::Failure;

/// How long the service may take to answer a question or to take something up.
pub(super) const ANSWER: Duration = Duration::from_secs(60);
/// How long the service may take to make, start, end or change a system.
pub(super) const WORK: Duration = Duration::from_secs(240);
/// How long the service may take for a process.
pub(super) const PROCESS: Duration = Duration::from_secs(120);

/// `HCS_E_OPERATION_TIMEOUT`
pub(super) const TIMED_OUT: i32 = 0x8037_0118_u32 as i32;
/// `E_UNEXPECTED`: the thread that made a call is gone.
const UNEXPECTED: i32 = 0x8000_ffff_u32 as i32;

/// The bound that a deadline is: itself, or what the environment's `RUNHCS_DEADLINE` says in
/// milliseconds, if that is less.
#[cfg(feature = "fault-injection")]
pub fn bound(deadline: Duration) -> Duration {
    let text = std::env::var("RUNHCS_DEADLINE").ok();
    let shorter = text.and_then(|text| text.parse().ok()).map(Duration::from_millis);
    shorter.map_or(deadline, |shorter| shorter.min(deadline))
}

/// The bound that a deadline is: itself.
#[cfg(not(feature = "fault-injection"))]
pub fn bound(deadline: Duration) -> Duration {
    deadline
}

/// Makes a call that returns only once it is done, in a thread of its own. If it isn't done in time
/// the thread is left alone with it; what it brings after all is given up there.
pub(super) fn within<T: Send + 'static>(
    attempt: impl Into<String>,
    deadline: Duration,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, outcome) = channel();
    thread::spawn(move || {
        let _ = sender.send(call());
    });
    match outcome.recv_timeout(bound(deadline)) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(Failure::new(attempt, TIMED_OUT)),
        Err(RecvTimeoutError::Disconnected) => Err(Failure::new(attempt, UNEXPECTED)),
    }
}
