//! Requests to the kernel about network devices (rtnetlink(7)), one at a time and without threads.

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use runhcs_compute::Result;

use crate::error::Context;
use crate::namespaces;

/// A line to the kernel that belongs to one network namespace.
#[derive(Debug)]
pub(crate) struct RtNetlink {
    socket: Socket,
    sequence: u32,
}

impl RtNetlink {
    /// Of the caller's own namespace.
    pub(crate) fn here() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Of another one: a socket belongs to the namespace in which it was made.
    pub(crate) fn within(namespace: &OwnedFd) -> Result<Self> {
        let what = || "open the own network namespace".to_owned();
        let own: OwnedFd = std::fs::File::open("/proc/self/ns/net").context(what)?.into();
        namespaces::join(libc::CLONE_NEWNET, "container's network", namespace)?;
        let made = Self::here();
        namespaces::join(libc::CLONE_NEWNET, "own network", &own)?;
        made.context(|| "open a netlink socket in the container's network namespace".into())
    }

    /// All devices.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.ask(request, NLM_F_DUMP)?;
        let link = |answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Link::of(&message),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(link).collect())
    }

    /// The addresses of a device.
    pub(crate) fn addresses(&mut self, index: u32) -> io::Result<Vec<AddressMessage>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.ask(request, NLM_F_DUMP)?;
        let address = |answer| match answer {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == index => {
                Some(message)
            }
            _ => None,
        };
        Ok(answers.into_iter().filter_map(address).collect())
    }

    /// Changes a device.
    pub(crate) fn set_link(
        &mut self,
        index: u32,
        up: Option<bool>,
        attributes: Vec<LinkAttribute>,
    ) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        if let Some(up) = up {
            message.header.change_mask = LinkFlags::Up;
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        }
        message.attributes = attributes;
        self.ask(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Gives a device an address.
    pub(crate) fn add_address(&mut self, message: AddressMessage) -> io::Result<()> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.ask(RouteNetlinkMessage::NewAddress(message), flags).map(drop)
    }

    fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(request));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                // Messages begin at multiples of four (netlink(7)).
                let length = (answer.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(length..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}

/// A device.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub is_up: bool,
}

impl Link {
    fn of(message: &LinkMessage) -> Option<Self> {
        let name = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
        let is_up = message.header.flags.contains(LinkFlags::Up);
        Some(Self { index: message.header.index, name, is_up })
    }
}
