//! The end of the VM, told to everybody who waits for something from it.

use tokio::sync::watch;

/// Whether the VM has ended, and why. Clones share it.
#[derive(Clone, Debug)]
pub struct Lost(watch::Sender<Option<String>>);

impl Lost {
    /// The VM is well.
    pub fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// The VM has ended. The first reason given is the one that counts.
    pub fn declare(&self, reason: String) {
        self.0.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(reason);
            first
        });
    }

    /// Why the VM has ended, as soon as it has.
    pub async fn wait(&self) -> String {
        let mut receiver = self.0.subscribe();
        let reason = receiver.wait_for(Option::is_some).await;
        // The sender is `self`, so the wait can't fail.
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }
}
