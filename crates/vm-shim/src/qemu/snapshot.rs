//! Saving a machine, all but its memory, and having another QEMU go on with it.

use std::os::fd::BorrowedFd;

use anyhow::{Context, bail};
use qapi::qmp::{self, MigrationCapability, MigrationCapabilityStatus, MigrationStatus};

use super::Monitor;

/// The name under which QEMU has the file.
const NAME: &str = "devices";

impl Monitor {
    /// Writes the state of all but the memory to a file. The machine is stopped then.
    ///
    /// # Errors
    /// If QEMU can't, or ends.
    pub async fn save(&self, file: BorrowedFd<'_>) -> anyhow::Result<()> {
        let uri = Some(self.prepare(file).await?);
        self.execute(qmp::migrate { channels: None, detach: None, resume: None, uri }).await?;
        let mut statuses = self.migration().statuses.borrow_mut();
        while let Some(status) = statuses.recv().await {
            match status {
                MigrationStatus::completed => return Ok(()),
                MigrationStatus::failed => bail!("QEMU can't save the machine"),
                _ => {}
            }
        }
        bail!("QEMU ended while it saved the machine")
    }

    /// Has a machine that was started for it go on from a saved state, and waits until it runs.
    ///
    /// # Errors
    /// If the state isn't one of such a machine; QEMU ends then.
    pub async fn resume(&self, file: BorrowedFd<'_>) -> anyhow::Result<()> {
        let uri = Some(self.prepare(file).await?);
        self.execute(qmp::migrate_incoming { channels: None, exit_on_error: None, uri }).await?;
        let mut running = self.migration().running.clone();
        running.wait_for(|runs| *runs).await.context("QEMU ended while it took the machine")?;
        Ok(())
    }

    /// Hands the file over, and leaves the memory out, which is a file that both have. Returns
    /// QEMU's name for the file.
    async fn prepare(&self, file: BorrowedFd<'_>) -> anyhow::Result<String> {
        let wanted = [MigrationCapability::x_ignore_shared, MigrationCapability::events];
        let capabilities =
            wanted.map(|capability| MigrationCapabilityStatus { capability, state: true }).to_vec();
        self.execute(qmp::migrate_set_capabilities { capabilities })
            .await
            .context("this QEMU can't save a machine without its memory")?;
        self.send_descriptor(file)?;
        self.execute(qmp::getfd { fdname: NAME.to_owned() }).await?;
        Ok(format!("fd:{NAME}"))
    }
}
