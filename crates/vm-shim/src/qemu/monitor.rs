//! QEMU's monitor, as far as it is needed: why the guest ended, and telling QEMU to.

use std::cell::RefCell;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;

use anyhow::Context;
use futures_util::StreamExt;
use qapi::futures::{QapiService, QmpStreamTokio};
use qapi::qmp;
use tokio::io::WriteHalf;
use tokio::net::UnixStream;

/// A connection to QEMU's monitor.
pub struct Monitor {
    service: QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>,
    shutdown_reason: Rc<RefCell<Option<String>>>,
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
        let reason = shutdown_reason.clone();
        // Reading events is also what delivers the answers to commands.
        tokio::task::spawn_local(async move {
            while let Some(Ok(event)) = events.next().await {
                tracing::debug!(?event, "QEMU");
                if let qmp::Event::SHUTDOWN { data, .. } = event {
                    *reason.borrow_mut() = Some(format!("{:?}", data.reason));
                }
            }
        });
        Ok(Self { service, shutdown_reason, socket: same, throttles })
    }

    /// What QEMU said of why the guest ended, if it did.
    pub fn shutdown_reason(&self) -> Option<String> {
        self.shutdown_reason.borrow().clone()
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
