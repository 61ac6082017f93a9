//! Makes a network namespace hold a network, and nothing else of what [`crate::collect`] finds.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::{Handle, LinkUnspec};
use runhcs_protocol::network::{Interface, MacAddress, Network};

use crate::collect::{Found, collect};
use crate::messages::{add_address, add_neighbour, add_route};

/// A device of the namespace.
#[derive(Clone, Debug)]
struct Device {
    index: u32,
    name: String,
    mac: MacAddress,
    mtu: u32,
    is_up: bool,
}

/// Makes it so. What is so already is left alone, so connections live on. Devices are known by
/// the hardware addresses that they were made with.
///
/// # Errors
/// What couldn't be set up; the rest may have been.
pub async fn apply(handle: &Handle, network: &Network) -> Result<()> {
    let devices = devices(handle).await?;
    let mut indexes = HashMap::new();
    for interface in &network.interfaces {
        let Some(device) = devices.get(&interface.device) else {
            bail!("there is no device for interface {} ({})", interface.name, interface.device);
        };
        indexes.insert(interface.name.as_str(), device.index);
    }
    free_names(handle, network, &devices).await?;
    for interface in &network.interfaces {
        let device = &devices[&interface.device];
        let what = || format!("set up interface {}", interface.name);
        bring_up(handle, interface, device).await.with_context(what)?;
    }
    let found = collect(handle, &[]).await?;
    for interface in &network.interfaces {
        let what = || format!("set the addresses of interface {}", interface.name);
        set_addresses(handle, interface, &found).await.with_context(what)?;
    }
    set_neighbours(handle, network, &found, &indexes).await?;
    // Addresses that went have taken routes with them.
    let found = collect(handle, &[]).await?;
    set_routes(handle, network, &found, &indexes).await
}

/// The names of devices that stand for no interface of a network.
///
/// # Errors
/// If the devices can't be listed.
pub async fn unused(handle: &Handle, network: &Network) -> Result<Vec<String>> {
    let mut devices = devices(handle).await?;
    devices.retain(|made_with, _| !network.interfaces.iter().any(|i| i.device == *made_with));
    Ok(devices.into_values().map(|device| device.name).collect())
}

/// The Ethernet devices by the hardware addresses that they were made with.
async fn devices(handle: &Handle) -> Result<HashMap<MacAddress, Device>> {
    let mut links = handle.link().get().execute();
    let mut devices = HashMap::new();
    while let Some(link) = links.try_next().await.context("list the devices")? {
        let (mut name, mut mac, mut made_with, mut mtu) = (None, None, None, None);
        let hardware = |bytes: &[u8]| <[u8; 6]>::try_from(bytes).ok().map(MacAddress);
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::Address(bytes) => mac = hardware(bytes),
                LinkAttribute::PermAddress(bytes) => made_with = hardware(bytes),
                LinkAttribute::Mtu(value) => mtu = Some(*value),
                _ => {}
            }
        }
        let (Some(name), Some(mac), Some(mtu)) = (name, mac, mtu) else { continue };
        if !link.header.flags.contains(LinkFlags::Loopback) {
            let is_up = link.header.flags.contains(LinkFlags::Up);
            let device = Device { index: link.header.index, name, mac, mtu, is_up };
            devices.insert(made_with.unwrap_or(mac), device);
        }
    }
    Ok(devices)
}

/// Gives every device that is to have another name, or has one that another is to have, a name
/// that nobody wants. Two devices may have each other's.
async fn free_names(
    handle: &Handle,
    network: &Network,
    devices: &HashMap<MacAddress, Device>,
) -> Result<()> {
    for (made_with, device) in devices {
        let wanted = network.interfaces.iter().find(|i| i.device == *made_with);
        let keeps = wanted.is_some_and(|interface| interface.name == device.name);
        let taken = network.interfaces.iter().any(|i| i.name == device.name);
        if keeps || (wanted.is_none() && !taken) {
            continue;
        }
        let message = LinkUnspec::new_with_index(device.index).down();
        let message = message.name(format!("runhcs{}", device.index)).build();
        handle.link().set(message).execute().await.context("rename a device")?;
    }
    Ok(())
}

async fn bring_up(handle: &Handle, interface: &Interface, device: &Device) -> Result<()> {
    let is_so = device.is_up
        && device.name == interface.name
        && device.mac == interface.mac
        && device.mtu == interface.mtu;
    if is_so {
        return Ok(());
    }
    let mut link = LinkUnspec::new_with_index(device.index).mtu(interface.mtu);
    if device.name != interface.name {
        link = link.name(interface.name.clone());
    }
    if device.mac != interface.mac {
        link = link.address(interface.mac.0.to_vec());
    }
    Ok(handle.link().set(link.up().build()).execute().await?)
}

async fn set_addresses(handle: &Handle, interface: &Interface, found: &Found) -> Result<()> {
    let Some(present) = found.interfaces.iter().find(|f| f.interface.name == interface.name) else {
        bail!("it has gone");
    };
    for (address, message) in &present.addresses {
        if !interface.addresses.contains(address) {
            let request = handle.address().del(message.clone());
            let what = || format!("remove address {}/{}", address.local, address.prefix);
            request.execute().await.with_context(what)?;
        }
    }
    for address in &interface.addresses {
        if !present.interface.addresses.contains(address) {
            let what = || format!("add address {}/{}", address.local, address.prefix);
            add_address(handle, address, present.index).await.with_context(what)?;
        }
    }
    Ok(())
}

async fn set_neighbours(
    handle: &Handle,
    network: &Network,
    found: &Found,
    indexes: &HashMap<&str, u32>,
) -> Result<()> {
    for (neighbour, message) in &found.neighbours {
        if !network.neighbours.contains(neighbour) {
            let request = handle.neighbours().del(message.clone());
            let what = || format!("remove neighbour {}", neighbour.address);
            request.execute().await.with_context(what)?;
        }
    }
    for neighbour in &network.neighbours {
        if !found.neighbours.iter().any(|(present, _)| present == neighbour) {
            let what = || format!("add neighbour {}", neighbour.address);
            let index = index(&neighbour.interface, indexes).with_context(what)?;
            add_neighbour(handle, neighbour, index).await.with_context(what)?;
        }
    }
    Ok(())
}

async fn set_routes(
    handle: &Handle,
    network: &Network,
    found: &Found,
    indexes: &HashMap<&str, u32>,
) -> Result<()> {
    // Those through a gateway last: it has to be within reach first.
    let (direct, indirect): (Vec<_>, Vec<_>) =
        network.routes.iter().partition(|route| route.gateway.is_none());
    for (route, message) in &found.routes {
        if !network.routes.contains(route) {
            let what = || format!("remove the route to {}/{}", route.destination, route.prefix);
            let request = handle.route().del(message.clone());
            request.execute().await.with_context(what)?;
        }
    }
    for route in direct.into_iter().chain(indirect) {
        if !found.routes.iter().any(|(present, _)| present == route) {
            let what = || format!("add the route to {}/{}", route.destination, route.prefix);
            let index = index(&route.interface, indexes).with_context(what)?;
            add_route(handle, route, index).await.with_context(what)?;
        }
    }
    Ok(())
}

fn index(name: &str, indexes: &HashMap<&str, u32>) -> Result<u32> {
    let index = indexes.get(name);
    index.copied().with_context(|| format!("there is no interface {name}"))
}
