//! Collects ended processes: PID 1 inherits every orphan, and some of them are containers'.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{Context, Result};
use runhcs_compute::ExitStatus;
use rustix::process::{WaitOptions, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells when a process has ended, and how.
pub type Exit = watch::Receiver<Option<ExitStatus>>;

/// Knows which ended processes somebody waits for.
#[derive(Debug, Default)]
pub struct Reaper {
    awaited: RefCell<HashMap<u32, watch::Sender<Option<ExitStatus>>>>,
    /// Ended before anybody could say that it is awaited; kept only while an engine call that may
    /// be about to say so is under way.
    early: RefCell<HashMap<u32, ExitStatus>>,
    calls: Cell<usize>,
}

/// While it exists, early exits are kept.
#[derive(Debug)]
pub struct Call(Rc<Reaper>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.set(self.0.calls.get() - 1);
        if self.0.calls.get() == 0 {
            self.0.early.borrow_mut().clear();
        }
    }
}

impl Reaper {
    /// Starts collecting.
    pub fn start() -> Result<Rc<Self>> {
        let reaper = Rc::new(Self::default());
        let mut ended = signal(SignalKind::child()).context("watch for ended processes")?;
        let collecting = Rc::clone(&reaper);
        tokio::task::spawn_local(async move {
            loop {
                collecting.collect();
                if ended.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// Announces an engine call that makes a process.
    pub fn call(self: &Rc<Self>) -> Call {
        self.calls.set(self.calls.get() + 1);
        Call(Rc::clone(self))
    }

    /// Awaits a process that the call made.
    pub fn await_exit(&self, pid: u32, _call: &Call) -> Exit {
        let early = self.early.borrow_mut().remove(&pid);
        let (sender, receiver) = watch::channel(early);
        if early.is_none() {
            self.awaited.borrow_mut().insert(pid, sender);
        }
        receiver
    }

    fn collect(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get() as u32;
            let status = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ExitStatus::Exited(code as u8),
                (None, Some(signal)) => ExitStatus::Signaled(signal as u8),
                (None, None) => continue,
            };
            if let Some(sender) = self.awaited.borrow_mut().remove(&pid) {
                sender.send_replace(Some(status));
            } else if self.calls.get() > 0 {
                self.early.borrow_mut().insert(pid, status);
            }
        }
    }
}

/// Waits for a process's end.
pub async fn ended(mut exit: Exit) -> ExitStatus {
    match exit.wait_for(Option::is_some).await {
        Ok(status) => status.unwrap_or(ExitStatus::Signaled(9)),
        // The sender goes only after it has sent.
        Err(_) => ExitStatus::Signaled(9),
    }
}
