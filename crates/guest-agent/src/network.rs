//! Sets the pod's network up in the guest's first network namespace, as it was on the host.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec, RouteMessageBuilder};
use runhcs_protocol::network::{Address, Interface, MacAddress, Neighbour, Network, Route};

use crate::boot;

/// Sets it up. Devices and interfaces know each other by their hardware addresses.
///
/// # Errors
/// What couldn't be set up; the rest may have been.
pub async fn configure(network: Network) -> Result<()> {
    boot::load_modules(boot::NETWORK_MODULE_LIST)?;
    let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
    let connection = tokio::task::spawn_local(connection);
    let outcome = configure_with(&handle, &network).await;
    connection.abort();
    outcome
}

async fn configure_with(handle: &Handle, network: &Network) -> Result<()> {
    let devices = devices(handle).await?;
    let mut indexes = HashMap::new();
    for (number, interface) in network.interfaces.iter().enumerate() {
        let Some(index) = devices.get(&interface.mac) else {
            bail!("the VM has no device for interface {} ({})", interface.name, interface.mac);
        };
        indexes.insert(interface.name.as_str(), *index);
        // Two devices may have each other's names.
        let name = format!("runhcs{number}");
        let message = LinkUnspec::new_with_index(*index).name(name).build();
        handle.link().set(message).execute().await.context("rename a device")?;
    }
    for interface in &network.interfaces {
        let index = indexes[interface.name.as_str()];
        bring_up(handle, interface, index)
            .await
            .with_context(|| format!("set up interface {}", interface.name))?;
    }
    for neighbour in &network.neighbours {
        add_neighbour(handle, neighbour, &indexes)
            .await
            .with_context(|| format!("add neighbour {}", neighbour.address))?;
    }
    // A gateway has to be within reach before a route through it can be added.
    let (direct, indirect): (Vec<_>, Vec<_>) =
        network.routes.iter().partition(|route| route.gateway.is_none());
    for route in direct.into_iter().chain(indirect) {
        add_route(handle, route, &indexes)
            .await
            .with_context(|| format!("add the route to {}/{}", route.destination, route.prefix))?;
    }
    Ok(())
}

/// The guest's Ethernet devices.
async fn devices(handle: &Handle) -> Result<HashMap<MacAddress, u32>> {
    let mut links = handle.link().get().execute();
    let mut devices = HashMap::new();
    while let Some(link) = links.try_next().await.context("list the devices")? {
        let mac = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => None,
        });
        devices.extend(mac.map(|mac| (MacAddress(mac), link.header.index)));
    }
    Ok(devices)
}

async fn bring_up(handle: &Handle, interface: &Interface, index: u32) -> Result<()> {
    let link = LinkUnspec::new_with_index(index).name(interface.name.clone()).mtu(interface.mtu);
    handle.link().set(link.up().build()).execute().await.context("bring it up")?;
    for address in &interface.addresses {
        let mut request = handle.address().add(index, address.local, address.prefix);
        *request.message_mut() = address_message(address, index);
        request
            .execute()
            .await
            .with_context(|| format!("add address {}/{}", address.local, address.prefix))?;
    }
    Ok(())
}

fn address_message(address: &Address, index: u32) -> AddressMessage {
    let prefix = address.prefix;
    let mut message = match address.local {
        IpAddr::V4(local) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(local, prefix).build()
        }
        IpAddr::V6(local) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(local, prefix).build()
        }
    };
    if let Some(peer) = address.peer {
        for attribute in &mut message.attributes {
            if let AddressAttribute::Address(to) = attribute {
                *to = peer;
            }
        }
        message.attributes.retain(|a| !matches!(a, AddressAttribute::Broadcast(_)));
    }
    // The host has made sure that nobody else has it.
    let mut flags = AddressFlags::Nodad;
    if address.no_prefix_route {
        flags |= AddressFlags::Noprefixroute;
    }
    message.attributes.push(AddressAttribute::Flags(flags));
    message
}

fn index(name: &str, indexes: &HashMap<&str, u32>) -> Result<u32> {
    let index = indexes.get(name);
    index.copied().with_context(|| format!("there is no interface {name}"))
}

async fn add_neighbour(
    handle: &Handle,
    neighbour: &Neighbour,
    indexes: &HashMap<&str, u32>,
) -> Result<()> {
    let index = index(&neighbour.interface, indexes)?;
    let request = handle.neighbours().add(index, neighbour.address);
    let request = request.link_layer_address(&neighbour.mac.0).state(NeighbourState::Permanent);
    Ok(request.replace().execute().await?)
}

async fn add_route(handle: &Handle, route: &Route, indexes: &HashMap<&str, u32>) -> Result<()> {
    let index = index(&route.interface, indexes)?;
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.destination, route.prefix)?
        .output_interface(index);
    if let Some(gateway) = route.gateway {
        builder = builder.gateway(gateway)?;
    } else if route.destination.is_ipv4() {
        builder = builder.scope(RouteScope::Link);
    }
    if let Some(source) = route.source {
        builder = builder.pref_source(source)?;
    }
    if let Some(metric) = route.metric {
        builder = builder.priority(metric);
    }
    if route.on_link {
        builder = builder.onlink();
    }
    Ok(handle.route().add(builder.build()).execute().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_address_is_not_the_own_one() {
        let address = Address {
            local: "10.0.0.1".parse().unwrap(),
            peer: Some("10.0.0.2".parse().unwrap()),
            prefix: 32,
            no_prefix_route: true,
        };
        let message = address_message(&address, 7);
        assert_eq!((message.header.index, message.header.prefix_len), (7, 32));
        assert!(message.attributes.contains(&AddressAttribute::Local(address.local)));
        assert!(message.attributes.contains(&AddressAttribute::Address(address.peer.unwrap())));
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        assert!(message.attributes.contains(&AddressAttribute::Flags(flags)));
    }
}
