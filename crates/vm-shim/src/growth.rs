//! Growing the VM while it runs: memory and virtual CPUs are plugged in, as far as its options say
//! that it may grow, and the guest takes them into use.

use std::rc::Rc;

use anyhow::{anyhow, bail};
use runhcs_protocol::guest::{Hardware, Reply, Request};
use runhcs_spec::VmOptions;
use runhcs_uvm::deadline;
use tokio::sync::Mutex;

use crate::agent::{Agent, NoReply};
use crate::qemu::{MEMORY_SLOTS, Monitor};

/// What memory is added in, in MiB: what Linux can take into use at once on x86-64
/// (Documentation/admin-guide/mm/memory-hotplug.rst).
const MEMORY_UNIT_MIB: u64 = 128;

/// The VM's size, now and at most.
pub struct Growth {
    monitor: Rc<Monitor>,
    agent: Agent,
    most: Hardware,
    huge_pages: bool,
    now: Mutex<Now>,
}

struct Now {
    hardware: Hardware,
    /// How many pieces of memory were added.
    pieces: u8,
}

impl Growth {
    /// The VM as it has booted.
    pub fn new(monitor: Rc<Monitor>, agent: Agent, options: &VmOptions) -> Self {
        let hardware = Hardware { memory_mib: options.memory_mib, vcpus: options.vcpus };
        let most = Hardware {
            memory_mib: options.max_memory_mib.unwrap_or(options.memory_mib),
            vcpus: options.max_vcpus.unwrap_or(options.vcpus),
        };
        let now = Mutex::new(Now { hardware, pieces: 0 });
        Self { monitor, agent, most, huge_pages: options.huge_pages, now }
    }

    /// Grows the VM so that a container can use up its limits, and the guest has `reserve_mib`
    /// besides if it may. Does nothing if the VM is large enough.
    ///
    /// # Errors
    /// If the VM may not grow so far, before anything has changed; if QEMU or the guest fail.
    pub async fn fit(&self, limits: Hardware, reserve_mib: u64) -> anyhow::Result<()> {
        let mut now = self.now.lock().await;
        let (has, most) = (now.hardware, self.most);
        if limits.memory_mib > most.memory_mib {
            bail!(
                "a limit of {} MiB is more than the VM's memory: it has {} MiB and may grow to {}; \
                 on the machine type q35, max-memory-mib says how far",
                limits.memory_mib,
                has.memory_mib,
                most.memory_mib
            );
        }
        if limits.vcpus > most.vcpus {
            bail!(
                "a quota of {} processors is more than the VM has: {}, and it may grow to {}; on \
                 the machine type q35, max-vcpus says how far",
                limits.vcpus,
                has.vcpus,
                most.vcpus
            );
        }
        let wanted = (limits.memory_mib + reserve_mib).min(most.memory_mib);
        if let Some(missing) = wanted.checked_sub(has.memory_mib).filter(|mib| *mib > 0) {
            let room = most.memory_mib - has.memory_mib;
            let added = missing.next_multiple_of(MEMORY_UNIT_MIB);
            // What is left at the end may be less than a unit.
            let added = if added > room { room / MEMORY_UNIT_MIB * MEMORY_UNIT_MIB } else { added };
            if added > 0 {
                self.add_memory(&mut now, added).await?;
            }
        }
        if limits.vcpus > has.vcpus {
            self.monitor.add_vcpus(limits.vcpus - has.vcpus).await?;
            now.hardware.vcpus = limits.vcpus;
        }
        if now.hardware == has {
            return Ok(());
        }
        let request = Request::UseHardware(now.hardware);
        match self.agent.call(&request, deadline::of(&request)).await {
            Ok(Reply::Done) => {}
            Ok(reply) => bail!("the guest agent's answer makes no sense: {reply:?}"),
            Err(NoReply::Failed(why)) => {
                return Err(anyhow!(why).context("the guest doesn't use what the VM was given"));
            }
            Err(NoReply::Ended(end)) => bail!("{end}"),
        }
        tracing::info!(from = ?has, to = ?now.hardware, "the virtual machine has grown");
        Ok(())
    }

    async fn add_memory(&self, now: &mut Now, mib: u64) -> anyhow::Result<()> {
        if now.pieces >= MEMORY_SLOTS {
            bail!("the VM's memory has grown {MEMORY_SLOTS} times; it can't grow again");
        }
        self.monitor.add_memory(now.pieces, mib, self.huge_pages).await?;
        now.pieces += 1;
        now.hardware.memory_mib += mib;
        Ok(())
    }
}
