//! The verdict pipe: standard output, on which the launching process waits for one answer.

use std::os::fd::OwnedFd;

use anyhow::Context;
use runhcs_uvm::SUCCESS;
use tokio::io::Interest;

use crate::watch::watch;

/// The pipe, as long as no answer was given.
#[derive(Debug)]
pub struct Verdict(OwnedFd);

impl Verdict {
    /// Takes standard output, so that nothing else gets into it and nobody else holds it open.
    pub fn take() -> anyhow::Result<Self> {
        let pipe = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)
            .context("cannot take the verdict pipe")?;
        let null = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .context("cannot open /dev/null")?;
        rustix::stdio::dup2_stdout(&null).context("cannot replace standard output")?;
        Ok(Self(pipe))
    }

    /// Returns when the launching process has gone away.
    pub async fn abandoned(&self) -> anyhow::Result<()> {
        let pipe =
            watch(self.0.try_clone()?, Interest::ERROR).context("cannot watch the verdict pipe")?;
        // Nobody who reads it is left; that doesn't change any more.
        let _gone = pipe.ready(Interest::ERROR).await.context("cannot watch the verdict pipe")?;
        Ok(())
    }

    /// Reports success.
    ///
    /// # Errors
    /// If the launching process has gone away.
    pub fn succeed(self) -> anyhow::Result<()> {
        self.write(SUCCESS)
    }

    /// Reports why there is no VM.
    pub fn fail(self, error: &anyhow::Error) {
        if let Err(error) = self.write(format!("{error:#}").as_bytes()) {
            tracing::warn!(error = format!("{error:#}"), "nobody heard of the failure");
        }
    }

    fn write(&self, mut data: &[u8]) -> anyhow::Result<()> {
        while !data.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&self.0, data))
                .context("the launching process has gone away")?;
            data = &data[written..];
        }
        Ok(())
    }
}
