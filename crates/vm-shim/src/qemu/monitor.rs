//! QEMU's monitor, as far as it is needed: why the guest ended, and telling QEMU to.

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;

use anyhow::Context;
use futures_util::StreamExt;
use qapi::futures::{QapiService, QmpStreamTokio};
use qapi::qmp;
use tokio::io::WriteHalf;
use tokio::net::UnixStream;
use tokio::sync::Notify;

/// Devices that are gone, by their ids, until somebody asks for them.
#[derive(Default)]
struct Deleted {
    ids: RefCell<HashSet<String>>,
    heard: Notify,
}

/// A connection to QEMU's monitor.
pub struct Monitor {
    service: QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>,
    shutdown_reason: Rc<RefCell<Option<String>>>,
    deleted: Rc<Deleted>,
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
        // Reading events is also what delivers the answers to commands.
        tokio::task::spawn_local(async move {
            while let Some(Ok(event)) = events.next().await {
                tracing::debug!(?event, "QEMU");
                match event {
                    qmp::Event::SHUTDOWN { data, .. } => {
                        *reason.borrow_mut() = Some(format!("{:?}", data.reason));
                    }
                    qmp::Event::DEVICE_DELETED { data, .. } => {
                        news.ids.borrow_mut().extend(data.device);
                        news.heard.notify_waiters();
                    }
                    _ => {}
                }
            }
        });
        Ok(Self { service, shutdown_reason, deleted, socket: same, throttles })
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

    pub(super) fn socket(&self) -> &StdUnixStream {
        &self.socket
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
