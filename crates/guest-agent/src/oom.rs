//! Telling the log when the kernel kills processes of a container for want of memory.

use std::cell::Cell;
use std::rc::Rc;

use runhcs_compute::{ContainerId, Error, Result};
use runhcs_container::{Container, MemoryEvents, OomCounts};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

/// Tells the log of a container's out-of-memory kills until it is dropped.
#[derive(Debug)]
pub struct OomLog {
    teller: Rc<Teller>,
    following: JoinHandle<()>,
}

#[derive(Debug)]
struct Teller {
    container: ContainerId,
    events: AsyncFd<MemoryEvents>,
    /// The counts when it told last.
    told: Cell<OomCounts>,
}

impl OomLog {
    /// Begins.
    pub fn start(container: &Container) -> Result<Self> {
        let events = container.memory_events()?;
        // SAFETY: the descriptor is owned by the AsyncFd from here on, so it stays open and the same
        // for as long as it is registered.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::PRIORITY) }
            .map_err(|error| Error::failed("watch memory.events", error))?;
        let container = container.resources.id.clone();
        let teller = Rc::new(Teller { container, events, told: Cell::default() });
        let following = tokio::task::spawn_local(Rc::clone(&teller).follow());
        Ok(Self { teller, following })
    }

    /// Tells of what has happened up to now.
    pub fn catch_up(&self) {
        // The control group may be gone already, and its counts with it.
        let _ = self.teller.tell();
    }
}

impl Drop for OomLog {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Teller {
    async fn follow(self: Rc<Self>) {
        loop {
            match self.events.ready(Interest::PRIORITY).await {
                Ok(mut ready) => ready.clear_ready(),
                Err(error) => {
                    tracing::warn!(container = %self.container, "watch memory.events: {error}");
                    return;
                }
            }
            if self.tell().is_err() {
                return;
            }
        }
    }

    fn tell(&self) -> std::io::Result<()> {
        let counts = self.events.get_ref().counts()?;
        if let Some(message) = message(self.told.get(), counts) {
            self.told.set(counts);
            tracing::warn!(container = %self.container, "{message}");
        }
        Ok(())
    }
}

/// What is to be said, if processes were killed in between.
fn message(before: OomCounts, after: OomCounts) -> Option<String> {
    let processes = match after.kills.saturating_sub(before.kills) {
        0 => return None,
        1 => "a process".to_owned(),
        kills => format!("{kills} processes"),
    };
    let why = if after.at_limit > before.at_limit {
        "the container's limit of memory is used up"
    } else {
        "the virtual machine's memory is used up"
    };
    Some(format!("the kernel has killed {processes} of the container: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_told_of_with_whose_memory_it_was() {
        let counts = |kills, at_limit| OomCounts { kills, at_limit };
        let said = |before, after| message(before, after).unwrap_or_default();
        let (limit, vm) = ("container's limit", "virtual machine's memory");
        assert_eq!(message(counts(1, 1), counts(1, 1)), None);
        // The limit is reached a moment before anybody is killed.
        assert_eq!(message(counts(0, 0), counts(0, 1)), None);
        for (before, after, how_many, whose) in [
            (counts(0, 0), counts(1, 1), "killed a process of", limit),
            (counts(1, 1), counts(4, 2), "killed 3 processes of", limit),
            (counts(1, 1), counts(2, 1), "killed a process of", vm),
        ] {
            let text = said(before, after);
            assert!(text.contains(how_many) && text.contains(whose), "{text}");
        }
    }
}
