//! The pod's network, carried into the VM.
//!
//! The network namespace is the host's, made and furnished by a CNI plugin, by Podman or by a hook.
//! The VM's network devices are the other ends of tap devices in that namespace. Each of its
//! Ethernet interfaces is paired with a tap, and traffic control moves every packet that arrives at
//! the one out through the other; so the VM stands in the network where the namespace stood. The
//! guest agent is told the rest: names, addresses, routes. Some taps are spare, for interfaces that
//! are added while the VM runs.
//!
//! A tap goes when QEMU, which alone has it open, ends. What is left in the namespace then, a
//! queueing discipline that leads nowhere, is removed by [`Carried`]'s end.

mod changes;
mod link;
mod netns;
mod redirect;
mod tap;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rtnetlink::Handle;
use runhcs_network::{Found, FoundInterface};
use runhcs_protocol::network::{MacAddress, Network};

pub use link::Link;

use tap::Tap;

/// How many network devices a machine of type microvm has room for besides its others.
pub const MICROVM_DEVICES: usize = 6;
/// How many devices a VM has for interfaces that are added while it runs.
const SPARE: usize = 2;

/// A network that leads into the VM for as long as this exists.
#[derive(Debug)]
pub struct Carried {
    netns: File,
    devices: Vec<Device>,
}

/// One of the VM's network devices, for the VM's life.
#[derive(Debug)]
pub struct Device {
    /// The hardware address that it is made with.
    pub mac: MacAddress,
    /// The most that it can carry in a packet, in bytes, if that is known from the beginning.
    pub mtu: Option<u32>,
    tap: Tap,
    /// The interface that it stands for, by its index.
    carries: Option<u32>,
}

impl Device {
    /// Its tap, until QEMU has it.
    pub fn tap(&self) -> Option<&OwnedFd> {
        self.tap.fd.as_ref()
    }
}

impl Carried {
    /// Takes over the network of the namespace at `path`, with at most `limit` interfaces. Returns
    /// what the guest is to be told of it, too.
    ///
    /// # Errors
    /// If the namespace is the host's own, or holds something that can't be carried.
    pub fn take(path: &Path, limit: usize) -> anyhow::Result<(Self, Network)> {
        let what = || format!("cannot carry the network namespace {} into the VM", path.display());
        let netns = netns::open(path).with_context(what)?;
        if netns::is_our_own(&netns)? {
            bail!(
                "the host's own network can't be had in a VM: linux.namespaces names {}; give the \
                 container a network namespace, or isolate it as a process",
                path.display()
            );
        }
        let mut carried = Self { netns, devices: Vec::new() };
        let devices = &mut carried.devices;
        let taken = netns::within(&carried.netns, async |handle| {
            let found = runhcs_network::collect(&handle, &[]).await?;
            let count = found.interfaces.len();
            if count > limit {
                bail!("it has {count} interfaces, and the machine type has room for {limit}");
            }
            for FoundInterface { interface, .. } in &found.interfaces {
                let tap = Tap::open(&handle).await?;
                let mtu = Some(interface.mtu);
                devices.push(Device { mac: interface.mac, mtu, tap, carries: None });
            }
            for number in 0..SPARE.min(limit - count) {
                let tap = Tap::open(&handle).await?;
                devices.push(Device { mac: spare_mac(number), mtu: None, tap, carries: None });
            }
            carry(&handle, devices, &found).await
        });
        Ok((carried, taken.with_context(what)?))
    }

    /// Carries what the namespace holds now; the guest is to be told what is returned.
    ///
    /// # Errors
    /// What can't be carried. The rest may be.
    pub fn follow(&mut self) -> anyhow::Result<Network> {
        let devices = &mut self.devices;
        netns::within(&self.netns, async |handle| {
            let taps: Vec<u32> = devices.iter().map(|device| device.tap.index).collect();
            let found = runhcs_network::collect(&handle, &taps).await?;
            carry(&handle, devices, &found).await
        })
    }

    /// Where other processes find the namespace, as long as this exists.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd()).into()
    }

    /// The VM's network devices.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Lets go of the taps, so that they end with QEMU.
    pub fn handed_over(&mut self) {
        for device in &mut self.devices {
            device.tap.fd = None;
        }
    }

    /// A descriptor that becomes readable when something in the namespace changes.
    pub fn changes(&self) -> anyhow::Result<OwnedFd> {
        netns::enter_and(&self.netns, || Ok(changes::socket()?))
            .context("cannot watch the network namespace")
    }
}

/// Has each interface carried by a device, and devices carry no others. Returns the network with
/// the devices that stand for its interfaces.
async fn carry(handle: &Handle, devices: &mut [Device], found: &Found) -> anyhow::Result<Network> {
    for device in devices.iter_mut() {
        let gone = |index: &u32| !found.interfaces.iter().any(|f| f.index == *index);
        if let Some(index) = device.carries.take_if(|index| gone(index)) {
            redirect::undo(handle, index).await;
            redirect::undo(handle, device.tap.index).await;
            device.tap.down(handle).await?;
        }
    }
    let mut network = found.network();
    for (entry, FoundInterface { index, interface, .. }) in
        network.interfaces.iter_mut().zip(&found.interfaces)
    {
        let carrying = devices.iter().position(|device| device.carries == Some(*index));
        let free = || {
            // The one that was made for it, else one with no limit of its own.
            let free = |device: &&Device| device.carries.is_none();
            let own = devices.iter().position(|d| free(&d) && d.mac == interface.mac);
            own.or_else(|| devices.iter().position(|d| free(&d) && d.mtu.is_none()))
        };
        let Some(number) = carrying.or_else(free) else {
            bail!(
                "interface {} finds no free device: the VM has {} network devices for interfaces \
                 that are added while it runs",
                interface.name,
                devices.iter().filter(|device| device.mtu.is_none()).count()
            );
        };
        let device = &mut devices[number];
        let what = || format!("interface {}", interface.name);
        device.tap.up(handle, interface.mtu).await.with_context(what)?;
        if carrying.is_none() {
            // Noted first, so that it is undone however far it gets.
            device.carries = Some(*index);
            redirect::redirect(handle, *index, device.tap.index).await.with_context(what)?;
        }
        entry.device = device.mac;
    }
    Ok(network)
}

/// Of the locally administered ones (IEEE 802), and unlikely to be used by somebody else.
fn spare_mac(number: usize) -> MacAddress {
    MacAddress([0x02, b'r', b'u', b'n', b'h', number as u8])
}

impl Drop for Carried {
    fn drop(&mut self) {
        let indexes: Vec<u32> = self.devices.iter().filter_map(|device| device.carries).collect();
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
