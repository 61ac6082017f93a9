//! Resuming a VM from a template.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use runhcs_protocol::template::{SEED, WAKE, Wake};
use runhcs_spec::VmOptions;
use runhcs_uvm::template::{Template, TemplateStore};
use rustix::thread::CapabilitySet;
use tokio::task::JoinHandle;

use super::{check, ingredients};
use crate::agent::{self, Greeted};
use crate::agent_log;
use crate::capabilities;
use crate::qemu::accelerator::Usable;
use crate::qemu::{Late, Monitor, Root};

/// The template that a VM with these options can be resumed from. One that can't be used is warned
/// of.
pub fn find(options: &VmOptions, program: &Path, accelerator: Usable) -> Option<Template> {
    let directory = options.templates.as_deref()?;
    if check(options).is_err() || !directory.exists() {
        return None;
    }
    let found = ingredients(options, program, accelerator)
        .and_then(|ingredients| Ok(TemplateStore::at(directory).find(&ingredients)?));
    found.unwrap_or_else(|error| {
        tracing::warn!(reason = format!("{error:#}"), "no template is used; the VM boots");
        None
    })
}

/// A VM that is being resumed: its memory is filled while QEMU starts.
#[derive(Debug)]
pub struct Resuming {
    devices: File,
    late: Late,
    filling: JoinHandle<anyhow::Result<()>>,
}

impl Resuming {
    /// Makes the memory in QEMU's root and begins to fill it.
    ///
    /// # Errors
    /// If there is no room, or the template is damaged.
    pub fn begin(
        template: Template,
        root: &mut Root,
        user: u32,
        late: Late,
    ) -> anyhow::Result<Self> {
        let memory = root.add_memory(template.manifest.memory.size, user)?;
        let devices = template.devices()?;
        let filling = tokio::task::spawn_blocking(move || {
            // The thread may be there for a while after this.
            capabilities::keep(CapabilitySet::empty()).context("cannot drop capabilities")?;
            Ok(template.fill(&memory)?)
        });
        Ok(Self { devices, late, filling })
    }

    /// Has the machine go on, with the devices that were missing, and wakes its agent through the
    /// console's `keyboard`.
    ///
    /// # Errors
    /// If the template is damaged, or QEMU doesn't take it.
    pub async fn go_on(self, monitor: &Monitor, keyboard: OwnedFd) -> anyhow::Result<()> {
        self.filling.await.context("the memory was not filled")??;
        monitor.resume(self.devices.as_fd()).await?;
        monitor.add(self.late).await?;
        File::from(keyboard).write_all(&[WAKE]).context("cannot wake the guest agent")
    }
}

/// Makes the VM whose agent has greeted one of its own.
///
/// # Errors
/// If the host has no random numbers or no time, or the agent doesn't wake up.
pub async fn wake(greeted: Greeted, log_level: &str) -> anyhow::Result<Greeted> {
    let mut seed = [0; SEED];
    // Waits, if ever, in the first seconds of the host's life only.
    let drawn = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    anyhow::ensure!(drawn.context("cannot draw a seed")? == SEED, "cannot draw a whole seed");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now: Duration = now.context("the host's clock is before 1970")?;
    let time = u64::try_from(now.as_nanos()).context("the host's clock is after 2554")?;
    agent::wake(greeted, &Wake { seed, time, log_level: agent_log::level(log_level) }).await
}
