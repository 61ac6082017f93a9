//! QEMU's monitor, as far as it is needed: why the guest ended, and telling QEMU to.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use qapi::futures::{QapiService, QmpStreamTokio};
use qapi::qmp;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::WriteHalf;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, Notify, mpsc, watch};

/// Devices that are gone, by their ids, until somebody asks for them.
#[derive(Default)]
struct Deleted {
    ids: RefCell<HashSet<String>>,
    heard: Notify,
}

/// What QEMU tells of a machine that is saved or resumed.
#[derive(Debug)]
pub(super) struct Migration {
    /// Whether the machine runs since QEMU was greeted.
    pub(super) running: watch::Receiver<bool>,
    /// How far it is.
    pub(super) statuses: Mutex<mpsc::UnboundedReceiver<qmp::MigrationStatus>>,
}

/// A connection to QEMU's monitor.
pub struct Monitor {
    service: QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>,
    shutdown_reason: Rc<RefCell<Option<String>>>,
    deleted: Rc<Deleted>,
    /// What it tells of a machine that is saved or resumed.
    migration: Migration,
    /// The same connection, for descriptors.
    socket: StdUnixStream,
    throttles: bool,
}

impl Monitor {
    /// Greets QEMU, which answers when the machine is complete and running. `throttles` says
    /// whether the throughput of its disks is limited.
    pub async fn open(socket: StdUnixStream, throttles: bool) -> anyhow::Result<Self> {
        socket.set_nonblocking(true)?;
        let same = socket.try_clone().context("cannot copy the monitor's socket")?;
        let (read, write) = tokio::io::split(UnixStream::from_std(socket)?);
        let stream = QmpStreamTokio::open_split(read, write)
            .await
            .context("QEMU's monitor doesn't answer")?
            .negotiate()
            .await
            .context("QEMU's monitor refuses us")?;
        let (service, mut events) = stream.into_parts();
        let shutdown_reason = Rc::new(RefCell::new(None));
        let (reason, deleted) = (shutdown_reason.clone(), Rc::new(Deleted::default()));
        let news = deleted.clone();
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
                    qmp::Event::DEVICE_DELETED { data, .. } => {
                        news.ids.borrow_mut().extend(data.device);
                        news.heard.notify_waiters();
                    }
                    qmp::Event::RESUME { .. } => drop(runs.send(true)),
                    qmp::Event::STOP { .. } => drop(runs.send(false)),
                    qmp::Event::MIGRATION { data, .. } => drop(migrates.send(data.status)),
                    _ => {}
                }
            }
        });
        let migration = Migration { running, statuses: Mutex::new(migration) };
        Ok(Self { service, shutdown_reason, deleted, migration, socket: same, throttles })
    }

    /// What QEMU said of why the guest ended, if it did.
    pub fn shutdown_reason(&self) -> Option<String> {
        self.shutdown_reason.borrow().clone()
    }

    /// Waits until a device that was to go is gone, with all that it held.
    pub(super) async fn device_deleted(&self, id: &str) {
        loop {
            // Made first, so that nothing is missed.
            let heard = self.deleted.heard.notified();
            if self.deleted.ids.borrow_mut().remove(id) {
                return;
            }
            heard.await;
        }
    }

    pub(super) fn service(&self) -> &QapiService<QmpStreamTokio<WriteHalf<UnixStream>>> {
        &self.service
    }

    pub(super) fn migration(&self) -> &Migration {
        &self.migration
    }

    /// Sends a descriptor, for the command that follows.
    pub(super) fn send_descriptor(&self, descriptor: BorrowedFd<'_>) -> anyhow::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            bail!("a descriptor doesn't fit into a message");
        }
        // QEMU keeps what came with the last message for the command that takes it. A blank is none.
        let blank = [IoSlice::new(b" ")];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(self.socket.as_fd(), &blank, &mut ancillary, flags)
            .context("cannot send QEMU a descriptor")?;
        Ok(())
    }

    pub(super) fn throttles(&self) -> bool {
        self.throttles
    }

    /// Has QEMU end.
    pub async fn quit(&self) -> anyhow::Result<()> {
        self.service.execute(qmp::quit {}).await.context("QEMU doesn't quit")?;
        Ok(())
    }
}
