//! The network namespace on this host that a VM's network is taken from, while the container is
//! created: a process in it, so that hooks and the VM shim find it by a pid, as they would find a
//! process-isolated container's. What stays in it afterwards, and so keeps it, are the VM shim and
//! the container shims; nothing is mounted, so nothing can be left behind.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::cli::NetworkArgs;

/// What the process writes once it is there; anything else is its error.
const READY: &[u8] = b"\0OK\0";

/// A process in the namespace. Dropping it ends the process.
#[derive(Debug)]
pub struct PodNetwork(Child);

impl PodNetwork {
    /// Puts a process into the namespace at `path`, or into a new one.
    pub fn hold(path: Option<&Path>) -> Result<Self> {
        let mut command = Command::new(crate::sys::own_program::path()?);
        command.arg("hold-network");
        if let Some(path) = path {
            command.arg("--network").arg(path);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut held = Self(command.spawn().context("start a process for the pod's network")?);
        let mut said = Vec::new();
        let stdout = held.0.stdout.take().context("the process has no output")?;
        stdout.take(4096).read_to_end(&mut said).context("hear from the pod's network")?;
        if said == READY {
            return Ok(held);
        }
        bail!("enter the pod's network: {}", String::from_utf8_lossy(&said))
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The namespace.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid()).into()
    }
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the hidden verb `hold-network` does: it stays until its standard input ends.
pub fn run(args: &NetworkArgs) -> Result<u8> {
    let entered = enter(args.network.as_deref());
    let mut stdout = std::io::stdout();
    let said = match &entered {
        Ok(()) => stdout.write_all(READY),
        Err(error) => stdout.write_all(format!("{error:#}").as_bytes()),
    };
    said.and_then(|()| stdout.flush()).context("report on the network namespace")?;
    entered?;
    // The reader waits for the end of what is said.
    let null = std::fs::File::open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdout(&null).context("close the standard output")?;
    std::io::stdin().read_to_end(&mut Vec::new()).context("wait")?;
    Ok(0)
}

/// Puts this process into the namespace at `path`, or into a new one whose loopback is up.
pub fn enter(path: Option<&Path>) -> Result<()> {
    let Some(path) = path else {
        // SAFETY: no descriptors are given up, and no other thread shares anything that would be.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("make a network namespace")?;
        return Ok(runhcs_container::loopback_up()?);
    };
    let what = || format!("enter the network namespace {}", path.display());
    let namespace = std::fs::File::open(path).with_context(what)?;
    move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&namespace),
        Some(LinkNameSpaceType::Network),
    )
    .with_context(what)
}
