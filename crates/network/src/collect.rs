//! What a network namespace holds that another one can hold too.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::{Context, bail};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};
use runhcs_protocol::network::{Address, Interface, MacAddress, Neighbour, Network, Route};

/// What was found, each with the kernel's own message, by which it can be removed.
#[derive(Debug, Default)]
pub struct Found {
    /// Ethernet interfaces that are in use.
    pub interfaces: Vec<FoundInterface>,
    /// Routes of the main table that the kernel didn't make by itself.
    pub routes: Vec<(Route, RouteMessage)>,
    /// Permanent neighbours.
    pub neighbours: Vec<(Neighbour, NeighbourMessage)>,
}

/// An Ethernet interface that is in use.
#[derive(Debug)]
pub struct FoundInterface {
    /// Its index.
    pub index: u32,
    /// It; its device is taken to be itself.
    pub interface: Interface,
    /// Its addresses.
    pub addresses: Vec<(Address, AddressMessage)>,
}

impl Found {
    /// It without the kernel's messages.
    pub fn network(&self) -> Network {
        Network {
            interfaces: self.interfaces.iter().map(|found| found.interface.clone()).collect(),
            routes: self.routes.iter().map(|(route, _)| route.clone()).collect(),
            neighbours: self.neighbours.iter().map(|(neighbour, _)| neighbour.clone()).collect(),
        }
    }
}

/// Reads it all, but for the interfaces with the indexes `except`.
///
/// # Errors
/// If something is in use there that can't be carried elsewhere.
pub async fn collect(handle: &Handle, except: &[u32]) -> anyhow::Result<Found> {
    let addresses: Vec<AddressMessage> =
        handle.address().get().execute().try_collect().await.context("cannot list addresses")?;
    let links: Vec<LinkMessage> =
        handle.link().get().execute().try_collect().await.context("cannot list interfaces")?;
    let mut found = Found::default();
    for link in links {
        let index = link.header.index;
        let own = addresses.iter().filter(|message| message.header.index == index);
        let own: Vec<(Address, AddressMessage)> =
            own.filter_map(|message| Some((address(message)?, message.clone()))).collect();
        let is_up = link.header.flags.contains(LinkFlags::Up);
        let name = name(&link);
        // A new namespace has devices that nobody asked for, such as tunl0; they are down.
        let unused = !is_up && own.is_empty();
        if link.header.flags.contains(LinkFlags::Loopback) || unused || except.contains(&index) {
            continue;
        }
        if link.header.link_layer_type != LinkLayerType::Ether {
            bail!("interface {name} is not an Ethernet device, so a VM can't take its place");
        }
        let (mac, mtu) = (mac(&link), mtu(&link));
        let mac = mac.with_context(|| format!("interface {name} has no hardware address"))?;
        let mtu = mtu.with_context(|| format!("interface {name} has no MTU"))?;
        let addresses = own.iter().map(|(address, _)| *address).collect();
        let interface = Interface { name, device: mac, mac, mtu, addresses };
        found.interfaces.push(FoundInterface { index, interface, addresses: own });
    }
    let names: HashMap<u32, String> =
        found.interfaces.iter().map(|f| (f.index, f.interface.name.clone())).collect();
    for query in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let routes = handle.route().get(query).execute();
        let routes: Vec<RouteMessage> = routes.try_collect().await.context("cannot list routes")?;
        for message in routes {
            if let Some(route) = route(&message, &names)? {
                found.routes.push((route, message));
            }
        }
    }
    let neighbours = handle.neighbours().get().execute();
    let neighbours: Vec<NeighbourMessage> =
        neighbours.try_collect().await.context("cannot list neighbours")?;
    for message in neighbours {
        if let Some(neighbour) = neighbour(&message, &names) {
            found.neighbours.push((neighbour, message));
        }
    }
    Ok(found)
}

fn name(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_else(|| format!("number {}", link.header.index))
}

fn mac(link: &LinkMessage) -> Option<MacAddress> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(MacAddress),
        _ => None,
    })
}

fn mtu(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// `None` for what the guest's kernel makes by itself.
fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut address, mut flags) = (None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(value) => local = Some(*value),
            AddressAttribute::Address(value) => address = Some(*value),
            AddressAttribute::Flags(value) => flags = *value,
            _ => {}
        }
    }
    // IPv6 has a local address only where there is a peer (ip-address(8)).
    let own = local.or(address)?;
    if matches!(own, IpAddr::V6(own) if own.is_unicast_link_local()) {
        return None;
    }
    Some(Address {
        local: own,
        peer: address.filter(|address| *address != own),
        prefix: message.header.prefix_len,
        no_prefix_route: flags.contains(AddressFlags::Noprefixroute),
    })
}

fn route(message: &RouteMessage, names: &HashMap<u32, String>) -> anyhow::Result<Option<Route>> {
    let header = &message.header;
    let by_kernel = matches!(header.protocol, RouteProtocol::Kernel | RouteProtocol::Ra);
    if by_kernel || header.kind != RouteType::Unicast {
        return Ok(None);
    }
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    };
    let (mut destination, mut gateway, mut source, mut output, mut metric) =
        (None, None, None, None, None);
    let mut table = u32::from(header.table);
    let mut beyond = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Oif(index) => output = Some(*index),
            RouteAttribute::Priority(value) => metric = Some(*value),
            RouteAttribute::Table(value) => table = *value,
            RouteAttribute::MultiPath(_) => beyond = Some("several next hops"),
            RouteAttribute::Via(_) => beyond = Some("a gateway of another address family"),
            RouteAttribute::Encap(_) => beyond = Some("an encapsulation"),
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return Ok(None);
    }
    let is_v4 = header.address_family == AddressFamily::Inet;
    let any = if is_v4 { IpAddr::V4([0; 4].into()) } else { IpAddr::V6([0; 16].into()) };
    let destination = destination.unwrap_or(any);
    let prefix = header.destination_prefix_length;
    if let Some(beyond) = beyond {
        bail!("the route to {destination}/{prefix} has {beyond}, which can't be carried");
    }
    let Some(interface) = output.and_then(|index| names.get(&index)) else { return Ok(None) };
    Ok(Some(Route {
        destination,
        prefix,
        gateway,
        source,
        interface: interface.clone(),
        metric,
        on_link: header.flags.contains(RouteFlags::Onlink),
    }))
}

fn neighbour(message: &NeighbourMessage, names: &HashMap<u32, String>) -> Option<Neighbour> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let interface = names.get(&message.header.ifindex)?.clone();
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(IpAddr::V4(*ip));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(IpAddr::V6(*ip));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some(Neighbour { address: address?, mac: MacAddress(mac?), interface })
}
