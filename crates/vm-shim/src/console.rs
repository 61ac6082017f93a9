//! The guest's serial console: logged to a file of bounded size, and passed on to whoever asked
//! for it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::rc::Rc;

use anyhow::Context;
use runhcs_uvm::files;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::tail::Tail;
use crate::vm_dir::VmDir;

/// When the log has this size, in bytes, it becomes the old log and a new one is begun.
const LOG_LIMIT: usize = 1 << 20;

/// The console's reader on the host.
pub struct Console {
    serial: UnixStream,
    dir: Rc<VmDir>,
    log: File,
    logged: usize,
    viewer: Option<UnixStream>,
    tail: Tail,
}

impl Console {
    /// Opens the log, and connects to `viewer`. The second result is QEMU's end.
    ///
    /// # Errors
    /// If the log can't be made, or nobody listens at `viewer`.
    pub fn open(
        dir: &Rc<VmDir>,
        viewer: Option<&Path>,
        tail: Tail,
    ) -> anyhow::Result<(Self, StdUnixStream)> {
        let log = dir.create_log(files::CONSOLE)?;
        let viewer = viewer.map(connect).transpose()?;
        let (serial, qemu) = StdUnixStream::pair().context("cannot make the console's socket")?;
        serial.set_nonblocking(true)?;
        let serial = UnixStream::from_std(serial)?;
        Ok((Self { serial, dir: dir.clone(), log, logged: 0, viewer, tail }, qemu))
    }

    /// A descriptor to type into the console with.
    pub fn keyboard(&self) -> anyhow::Result<OwnedFd> {
        self.serial.as_fd().try_clone_to_owned().context("cannot copy the console's socket")
    }

    /// Copies what the guest writes until QEMU ends.
    pub async fn run(mut self) {
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = self.serial.read(&mut buffer).await {
            let data = &buffer[..length];
            self.tail.push(data);
            if let Err(error) = self.write_log(data) {
                tracing::warn!(error = format!("{error:#}"), "the console log is incomplete");
            }
            // A viewer that doesn't keep up misses something; the guest isn't held up.
            if let Some(viewer) = &self.viewer {
                let _ = viewer.try_write(data);
            }
        }
    }

    fn write_log(&mut self, data: &[u8]) -> anyhow::Result<()> {
        if self.logged + data.len() > LOG_LIMIT {
            self.dir.rename(files::CONSOLE, files::OLD_CONSOLE)?;
            self.log = self.dir.create_log(files::CONSOLE)?;
            self.logged = 0;
        }
        self.logged += data.len();
        self.log.write_all(data).context("cannot write the console log")
    }
}

fn connect(path: &Path) -> anyhow::Result<UnixStream> {
    let viewer = StdUnixStream::connect(path)
        .with_context(|| format!("cannot connect to the console socket {}", path.display()))?;
    viewer.set_nonblocking(true)?;
    Ok(UnixStream::from_std(viewer)?)
}
