//! The end of the VM, told to everybody who waits for something from it.
//!
//! Whoever sees a part of the VM fail suspects; only the owner of the VM declares, when it knows the
//! cause and has written it down. So nobody hears of the end before the log has it.

use runhcs_protocol::shim::VmEnd;
use tokio::sync::watch;

/// Whether the VM has ended, and how. Clones share it.
#[derive(Clone, Debug)]
pub struct Ending {
    suspected: watch::Sender<Option<String>>,
    declared: watch::Sender<Option<VmEnd>>,
}

impl Ending {
    /// The VM is well.
    pub fn new() -> Self {
        Self { suspected: watch::Sender::new(None), declared: watch::Sender::new(None) }
    }

    /// The VM can't go on. The first reason given is the one that counts.
    pub fn suspect(&self, reason: String) {
        set(&self.suspected, reason);
    }

    /// Why the VM can't go on, as soon as somebody suspects so.
    pub async fn suspected(&self) -> String {
        wait(&self.suspected).await
    }

    /// The VM has ended, and its log says so. What is declared first is what counts.
    pub fn declare(&self, end: VmEnd) {
        set(&self.declared, end);
    }

    /// How the VM has ended, as soon as that is declared.
    pub async fn declared(&self) -> VmEnd {
        wait(&self.declared).await
    }
}

fn set<T>(sender: &watch::Sender<Option<T>>, value: T) {
    sender.send_if_modified(|known| {
        let first = known.is_none();
        known.get_or_insert(value);
        first
    });
}

async fn wait<T: Clone>(sender: &watch::Sender<Option<T>>) -> T {
    let mut receiver = sender.subscribe();
    loop {
        if let Some(value) = &*receiver.borrow_and_update() {
            return value.clone();
        }
        // The sender is borrowed, so the wait can't fail.
        let _ = receiver.changed().await;
    }
}
