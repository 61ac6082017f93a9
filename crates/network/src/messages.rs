//! The messages that add addresses, routes and neighbours (rtnetlink(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{AddressMessageBuilder, Handle, RouteMessageBuilder};
use runhcs_protocol::network::{Address, Neighbour, Route};

/// Adds an address to an interface.
pub async fn add_address(handle: &Handle, address: &Address, index: u32) -> Result<()> {
    let mut request = handle.address().add(index, address.local, address.prefix);
    *request.message_mut() = address_message(address, index);
    Ok(request.execute().await?)
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

/// Adds a permanent neighbour at an interface, in place of what is known of its address.
pub async fn add_neighbour(handle: &Handle, neighbour: &Neighbour, index: u32) -> Result<()> {
    let request = handle.neighbours().add(index, neighbour.address);
    let request = request.link_layer_address(&neighbour.mac.0).state(NeighbourState::Permanent);
    Ok(request.replace().execute().await?)
}

/// Adds a route over an interface.
pub async fn add_route(handle: &Handle, route: &Route, index: u32) -> Result<()> {
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
