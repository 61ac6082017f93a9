//! Disks of a running QEMU, which has none of the host's files: it is handed descriptors.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use anyhow::Context;
use qapi::qmp::{self, BlockdevOptions, BlockdevOptionsBase, BlockdevOptionsFile};
use serde_json::{Value, json};

use super::Monitor;

/// The controller's id on QEMU's command line.
pub const CONTROLLER: &str = "disks";
/// The id of what all disks share in throughput, if that is limited.
pub const THROTTLE: &str = "disks-limit";
/// How long QEMU may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// The sizes of a disk's sectors, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sectors {
    /// What can be addressed.
    pub logical: u32,
    /// What is written at once.
    pub physical: u32,
}

/// A disk as QEMU is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Drive {
    /// Its number on the controller.
    pub target: u8,
    /// Whether it is a block device rather than a file.
    pub block_device: bool,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// Its sectors.
    pub sectors: Sectors,
}

impl Monitor {
    /// Plugs a disk in. Undone if it fails.
    ///
    /// # Errors
    /// What QEMU says is wrong.
    pub async fn plug(&self, drive: &Drive, file: BorrowedFd<'_>) -> anyhow::Result<()> {
        let number = i64::from(drive.target);
        self.hand_over(number, file).await?;
        let opened = self.execute(qmp::blockdev_add(backend(drive, self.throttles()))).await;
        // The drive has a copy of its own, or there is none.
        let closed = self.execute(qmp::remove_fd { fd: None, fdset_id: number }).await;
        opened.context("QEMU can't open it")?;
        let added = match closed {
            Ok(_) => self.execute(device(drive)).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = added {
            let undone = self.execute(qmp::blockdev_del { node_name: node(drive.target) }).await;
            if let Err(error) = undone {
                tracing::warn!(error = format!("{error:#}"), "QEMU keeps a disk open");
            }
            return Err(error).context("QEMU can't attach it to its controller");
        }
        Ok(())
    }

    /// Plugs a disk out. The guest should have let go of it.
    ///
    /// # Errors
    /// What QEMU says is wrong.
    pub async fn unplug(&self, target: u8) -> anyhow::Result<()> {
        // The guest isn't asked on this kind of bus, but QEMU has to be done with the device.
        let id = device_id(target);
        self.execute(qmp::device_del { id: id.clone() }).await?;
        tokio::time::timeout(DEADLINE, self.device_deleted(&id))
            .await
            .with_context(|| format!("QEMU keeps the device {id}"))?;
        self.execute(qmp::blockdev_del { node_name: node(target) }).await?;
        Ok(())
    }

    /// Hands QEMU a descriptor, as the only member of its set `number`.
    async fn hand_over(&self, number: i64, file: BorrowedFd<'_>) -> anyhow::Result<()> {
        self.send_descriptor(file)?;
        self.execute(qmp::add_fd { fdset_id: Some(number), opaque: None })
            .await
            .context("QEMU doesn't take a descriptor")?;
        Ok(())
    }

    /// Executes a command of the monitor's, which has to answer in time.
    pub(super) async fn execute<C: qmp::QmpCommand>(&self, command: C) -> anyhow::Result<C::Ok> {
        let answered = tokio::time::timeout(DEADLINE, self.service().execute(command)).await;
        let answered = answered.with_context(|| {
            format!("QEMU's monitor didn't answer {} within {} s", C::NAME, DEADLINE.as_secs())
        })?;
        answered.with_context(|| format!("QEMU refuses {}", C::NAME))
    }
}

fn node(target: u8) -> String {
    format!("drive{target}")
}

fn device_id(target: u8) -> String {
    format!("disk{target}")
}

/// What QEMU reads and writes.
fn backend(drive: &Drive, throttled: bool) -> BlockdevOptions {
    let named = |name: Option<String>| BlockdevOptionsBase {
        auto_read_only: Some(false),
        cache: None,
        detect_zeroes: None,
        // What the guest has discarded makes a hole in an image.
        discard: Some(qmp::BlockdevDiscardOptions::unmap),
        force_share: None,
        node_name: name,
        read_only: Some(drive.read_only),
    };
    let name = Some(node(drive.target));
    let file = BlockdevOptionsFile {
        aio: None,
        aio_max_batch: None,
        drop_cache: None,
        // Whoever opened it has seen to that.
        locking: Some(qmp::OnOffAuto::off),
        pr_manager: None,
        x_check_cache_dropped: None,
        filename: format!("/dev/fdset/{}", drive.target),
    };
    let base = named(if throttled { None } else { name.clone() });
    let plain = if drive.block_device {
        BlockdevOptions::host_device { base, host_device: file }
    } else {
        BlockdevOptions::file { base, file }
    };
    if !throttled {
        return plain;
    }
    BlockdevOptions::throttle {
        base: named(name),
        throttle: qmp::BlockdevOptionsThrottle {
            file: qmp::BlockdevRef::definition(Box::new(plain)),
            throttle_group: THROTTLE.to_owned(),
        },
    }
}

/// What the guest sees.
fn device(drive: &Drive) -> qmp::device_add {
    let Sectors { logical, physical } = drive.sectors;
    let arguments = [
        ("drive", Value::from(node(drive.target))),
        ("scsi-id", drive.target.into()),
        ("lun", 0.into()),
        ("logical_block_size", logical.into()),
        ("physical_block_size", physical.max(logical).into()),
        // No moving parts, for all that is known: the guest needn't sort what it asks for.
        ("rotation_rate", json!(1)),
    ];
    qmp::device_add {
        bus: Some(format!("{CONTROLLER}.0")),
        id: Some(device_id(drive.target)),
        driver: "scsi-hd".to_owned(),
        arguments: arguments.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}
