//! Saving a machine, all but its memory, and having another QEMU go on with it.
//!
//! QEMU refuses to take a saved machine if it has devices that can't be saved, whether the saved
//! machine had any or not. Those of the vhost-user kind are such. They are added when the machine
//! runs: QEMU lets devices be added to a bus that has somebody who handles it, which slots of a
//! `microvm` don't have, for their guests aren't told. Ours looks by itself. So the slots get the
//! plainest handler there is, the disk controller's own bus, which does nothing when something is
//! added.

use std::os::fd::BorrowedFd;

use anyhow::{Context, bail};
use qapi::qmp::{self, MigrationCapability, MigrationCapabilityStatus, MigrationStatus};
use runhcs_protocol::SHARE_TAG;
use runhcs_spec::{Entropy, VmOptions};
use serde_json::{Value, json};

use super::Monitor;
use super::arguments::SHARE_QUEUE;
use super::drives::CONTROLLER;

/// The name under which QEMU has the file.
const NAME: &str = "devices";
/// The last slot of a `microvm`. QEMU fills the slots from there on downwards.
const LAST_SLOT: usize = 23;

/// The devices that are added to a resumed machine, in the slots after those of its other devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// How many slots the others take.
    taken: usize,
}

impl Late {
    /// For a VM with so many network devices.
    pub fn of(options: &VmOptions, network_devices: usize) -> Self {
        let disk_controller = 1;
        let entropy = usize::from(options.entropy == Entropy::Host);
        Self { taken: disk_controller + entropy + network_devices }
    }

    /// The commands that add them, each with its slot's name.
    fn commands(self) -> impl Iterator<Item = (String, qmp::device_add)> {
        let devices = [
            ("vhost-user-vsock-device", vec![("chardev", Value::from("vsock"))]),
            (
                "vhost-user-fs-device",
                vec![
                    ("chardev", "virtiofs".into()),
                    ("tag", SHARE_TAG.into()),
                    ("queue-size", SHARE_QUEUE.into()),
                ],
            ),
        ];
        devices.into_iter().enumerate().map(move |(number, (driver, arguments))| {
            let slot = LAST_SLOT.saturating_sub(self.taken + number);
            let bus = format!("virtio-mmio-bus.{slot}");
            let arguments =
                arguments.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let driver = driver.to_owned();
            (bus.clone(), qmp::device_add { bus: Some(bus), id: None, driver, arguments })
        })
    }
}

impl Monitor {
    /// Writes the state of all but the memory to a file. The machine is stopped then.
    ///
    /// # Errors
    /// If QEMU can't, or ends.
    pub async fn save(&self, file: BorrowedFd<'_>) -> anyhow::Result<()> {
        let uri = Some(self.prepare(file).await?);
        self.execute(qmp::migrate { channels: None, detach: None, resume: None, uri }).await?;
        let mut statuses = self.migration().statuses.lock().await;
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

    /// Adds the devices that were still missing. The guest has to look for them.
    ///
    /// # Errors
    /// If QEMU can't.
    pub async fn add(&self, late: Late) -> anyhow::Result<()> {
        for (path, device) in late.commands() {
            let property = "hotplug-handler".to_owned();
            let value = json!(format!("{CONTROLLER}.0"));
            self.execute(qmp::qom_set { path, property, value }).await?;
            self.execute(device).await?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_devices_come_after_the_others() {
        let commands: Vec<_> = Late { taken: 3 }.commands().collect();
        let slots: Vec<_> = commands.iter().map(|(slot, _)| slot.as_str()).collect();
        assert_eq!(slots, ["virtio-mmio-bus.20", "virtio-mmio-bus.19"]);
        assert_eq!(commands[1].1.arguments["tag"], SHARE_TAG);
    }
}
