//! QEMU's monitor, as far as it is needed: why the guest ended, and telling QEMU to.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use qapi::futures::{QapiService, QmpStreamTokio};
use qapi::qmp;
use tokio::io::WriteHalf;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

/// A connection to QEMU's monitor.
pub struct Monitor {
    service: QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>,
    shutdown_reason: Rc<RefCell<Option<String>>>,
    running: watch::Receiver<bool>,
    migration: RefCell<mpsc::UnboundedReceiver<qmp::MigrationStatus>>,
}

impl Monitor {
    /// Greets QEMU, which answers when the machine is complete and running.
    pub async fn open(socket: StdUnixStream) -> anyhow::Result<Self> {
        socket.set_nonblocking(true)?;
        let (read, write) = tokio::io::split(UnixStream::from_std(socket)?);
        let stream = QmpStreamTokio::open_split(read, write)
            .await
            .context("QEMU's monitor doesn't answer")?
            .negotiate()
            .await
            .context("QEMU's monitor refuses us")?;
        let (service, mut events) = stream.into_parts();
        let shutdown_reason = Rc::new(RefCell::new(None));
        let reason = shutdown_reason.clone();
        let (runs, running) = watch::channel(false);
        let (migrates, migration) = mpsc::unbounded_channel();
        // Reading events is also what delivers the answers to commands.
        tokio::task::spawn_local(async move {
            while let Some(Ok(event)) = events.next().await {
                tracing::debug!(?event, "QEMU");
                // Who waited for an event may have gone.
                match event {
                    qmp::Event::SHUTDOWN { data, .. } => {
                        *reason.borrow_mut() = Some(format!("{:?}", data.reason));
                    }
                    qmp::Event::RESUME { .. } => drop(runs.send(true)),
                    qmp::Event::STOP { .. } => drop(runs.send(false)),
                    qmp::Event::MIGRATION { data, .. } => drop(migrates.send(data.status)),
                    _ => {}
                }
            }
        });
        let migration = RefCell::new(migration);
        Ok(Self { service, shutdown_reason, running, migration })
    }

    /// Writes the state of all but the memory to a file, whose descriptor QEMU has inherited by the
    /// same number. The machine is stopped then.
    pub async fn save(&self, file: BorrowedFd<'_>) -> anyhow::Result<()> {
        self.leave_memory_out().await?;
        let uri = Some(format!("fd:{}", file.as_raw_fd()));
        let migrate = qmp::migrate { channels: None, detach: None, resume: None, uri };
        self.service.execute(migrate).await.context("QEMU doesn't save the machine")?;
        let mut migration = self.migration.borrow_mut();
        while let Some(status) = migration.recv().await {
            match status {
                qmp::MigrationStatus::completed => return Ok(()),
                qmp::MigrationStatus::failed => bail!("QEMU can't save the machine"),
                _ => {}
            }
        }
        bail!("QEMU ended while it saved the machine")
    }

    /// Has a machine that was started for it go on from a saved state, and waits until it runs. If
    /// that fails QEMU ends. The file's descriptor was inherited by the same number.
    pub async fn resume(&self, file: BorrowedFd<'_>) -> anyhow::Result<()> {
        self.leave_memory_out().await?;
        let uri = Some(format!("fd:{}", file.as_raw_fd()));
        let resume = qmp::migrate_incoming { channels: None, exit_on_error: None, uri };
        self.service.execute(resume).await.context("QEMU doesn't take the saved machine")?;
        let mut running = self.running.clone();
        running.wait_for(|runs| *runs).await.context("QEMU ended while it took the machine")?;
        Ok(())
    }

    /// The memory is a file that saver and saved share.
    async fn leave_memory_out(&self) -> anyhow::Result<()> {
        let wanted = [qmp::MigrationCapability::x_ignore_shared, qmp::MigrationCapability::events];
        let capabilities = wanted
            .map(|capability| qmp::MigrationCapabilityStatus { capability, state: true })
            .to_vec();
        self.service
            .execute(qmp::migrate_set_capabilities { capabilities })
            .await
            .context("this QEMU can't save a machine without its memory")?;
        Ok(())
    }

    /// What QEMU said of why the guest ended, if it did.
    pub fn shutdown_reason(&self) -> Option<String> {
        self.shutdown_reason.borrow().clone()
    }

    /// Has QEMU end.
    pub async fn quit(&self) -> anyhow::Result<()> {
        self.service.execute(qmp::quit {}).await.context("QEMU doesn't quit")?;
        Ok(())
    }
}
