//! A child process that is killed and reaped when its owner lets go of it.

use std::os::fd::OwnedFd;
use std::process::{Child as StdChild, ExitStatus};

use anyhow::Context;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::watch::watch;

/// A running child.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    child: StdChild,
    pidfd: AsyncFd<OwnedFd>,
}

impl Child {
    /// Takes charge of a child.
    pub fn new(name: &'static str, mut child: StdChild) -> anyhow::Result<Self> {
        let pidfd = Pid::from_raw(child.id().cast_signed())
            .context("a process without a pid")
            .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?))
            .and_then(|pidfd| Ok(watch(pidfd, Interest::READABLE)?));
        match pidfd {
            Ok(pidfd) => Ok(Self { name, child, pidfd }),
            Err(error) => {
                end(name, &mut child);
                Err(error.context(format!("cannot watch {name}")))
            }
        }
    }

    /// Waits until it has ended; says how.
    pub async fn ended(&mut self) -> String {
        // A failure to wait shows in what follows.
        let _ = self.pidfd.readable().await;
        match self.child.try_wait() {
            Ok(Some(status)) => describe(self.name, status),
            Ok(None) => format!("{} can't be waited for", self.name),
            Err(error) => format!("{} can't be waited for: {error}", self.name),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        end(self.name, &mut self.child);
    }
}

fn end(name: &str, child: &mut StdChild) {
    // Killing it fails if it has ended; then waiting doesn't take long either.
    let _ = child.kill();
    if let Err(error) = child.wait() {
        tracing::warn!(%error, "cannot wait for {name}");
    }
}

fn describe(name: &str, status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;

    match (status.code(), status.signal()) {
        (Some(code), _) => format!("{name} exited with code {code}"),
        (None, Some(signal)) => format!("{name} was killed by signal {signal}"),
        (None, None) => format!("{name} ended ({status})"),
    }
}
