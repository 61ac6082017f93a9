//! The end of the VM, told to everybody who waits for something from it.
//!
//! Whoever sees a part of the VM fail suspects; only the owner of the VM declares, when it knows the
//! cause and has written it down. So nobody hears of the end before the log has it.

use tokio::sync::watch;

/// Whether the VM has ended, and why. Clones share it.
#[derive(Clone, Debug)]
pub struct Lost {
    suspected: watch::Sender<Option<String>>,
    declared: watch::Sender<Option<String>>,
}

impl Lost {
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

    /// The VM has ended, and its log says so. The first reason given is the one that counts.
    pub fn declare(&self, reason: String) {
        set(&self.declared, reason);
    }

    /// Why the VM has ended, as soon as that is declared.
    pub async fn wait(&self) -> String {
        wait(&self.declared).await
    }
}

fn set(sender: &watch::Sender<Option<String>>, reason: String) {
    sender.send_if_modified(|known| {
        let first = known.is_none();
        known.get_or_insert(reason);
        first
    });
}

async fn wait(sender: &watch::Sender<Option<String>>) -> String {
    let mut receiver = sender.subscribe();
    let reason = receiver.wait_for(Option::is_some).await;
    // The sender is borrowed, so the wait can't fail.
    reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
}
