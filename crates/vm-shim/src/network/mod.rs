//! The pod's network, carried into the VM.
//!
//! The network namespace is the host's, made and furnished by a CNI plugin or by Podman. Each of
//! its Ethernet interfaces gets a tap device beside it in the namespace, and traffic control moves
//! every packet that arrives at the one out through the other. The tap is the other end of a
//! network device in the VM, which has the interface's hardware address; so the VM stands in the
//! network where the namespace stood. The guest agent is told the rest: names, addresses, routes.
//!
//! A tap goes when QEMU, which alone has it open, ends. What is left in the namespace then, a
//! queueing discipline that leads nowhere, is removed by [`Carried`]'s end.

mod collect;
mod netns;
mod redirect;
mod tap;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, bail};
use runhcs_protocol::network::{Interface, Network};

/// How many network devices a machine of type microvm has room for besides its others.
pub const MICROVM_DEVICES: usize = 6;

/// A network that leads into the VM for as long as this exists.
#[derive(Debug)]
pub struct Carried {
    /// What the guest is told of it.
    pub network: Network,
    netns: File,
    /// In the order of the interfaces; empty once QEMU has them.
    taps: Vec<OwnedFd>,
    indexes: Vec<u32>,
}

impl Carried {
    /// Takes over the network of the namespace at `path`, with at most `limit` interfaces.
    ///
    /// # Errors
    /// If the namespace is the host's own, or holds something that can't be carried.
    pub fn take(path: &Path, limit: usize) -> anyhow::Result<Self> {
        let what = || format!("cannot carry the network namespace {} into the VM", path.display());
        let netns = netns::open(path).with_context(what)?;
        if netns::is_our_own(&netns)? {
            bail!(
                "the host's own network can't be had in a VM: linux.namespaces names {}; give the \
                 container a network namespace, or isolate it as a process",
                path.display()
            );
        }
        let mut carried =
            Self { network: Network::default(), netns, taps: Vec::new(), indexes: Vec::new() };
        let mut taps = Vec::new();
        let mut indexes = Vec::new();
        let found = netns::within(&carried.netns, async |handle| {
            let found = collect::collect(&handle).await?;
            if found.interfaces.len() > limit {
                bail!(
                    "it has {} interfaces, and the machine type has room for {limit}",
                    found.interfaces.len()
                );
            }
            for (index, interface) in &found.interfaces {
                // Noted first, so that it is undone however far it gets.
                indexes.push(*index);
                let tap = redirect::redirect(&handle, *index, interface).await;
                taps.push(tap.with_context(|| format!("interface {}", interface.name))?);
            }
            Ok(found)
        });
        (carried.taps, carried.indexes) = (taps, indexes);
        let found = found.with_context(what)?;
        carried.network = Network {
            interfaces: found.interfaces.into_iter().map(|(_, interface)| interface).collect(),
            routes: found.routes,
            neighbours: found.neighbours,
        };
        Ok(carried)
    }

    /// The interfaces with their taps, for QEMU.
    pub fn devices(&self) -> impl Iterator<Item = (&Interface, &OwnedFd)> {
        self.network.interfaces.iter().zip(&self.taps)
    }

    /// Lets go of the taps, so that they end with QEMU.
    pub fn handed_over(&mut self) {
        self.taps.clear();
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        let indexes = std::mem::take(&mut self.indexes);
        if indexes.is_empty() {
            return;
        }
        let undone = netns::within(&self.netns, async |handle| {
            for index in indexes {
                redirect::undo(&handle, index).await;
            }
            Ok(())
        });
        if let Err(error) = undone {
            tracing::warn!(error = format!("{error:#}"), "cannot tidy the network namespace");
        }
    }
}
