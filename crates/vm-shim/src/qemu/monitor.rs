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
        // Reading events is also what delivers the answers to commands.
        tokio::task::spawn_local(async move {
            while let Some(Ok(event)) = events.next().await {
                tracing::debug!(?event, "QEMU");
                if let qmp::Event::SHUTDOWN { data, .. } = event {
                    *reason.borrow_mut() = Some(format!("{:?}", data.reason));
                }
            }
        });
        Ok(Self { service, shutdown_reason })
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
