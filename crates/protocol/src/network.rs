//! A pod's network: as the VM shim finds it in the pod's network namespace, and as the guest agent
//! sets it up in the VM.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Ethernet interfaces.
    pub interfaces: Vec<Interface>,
    /// Routes of the main table that the kernel doesn't make by itself.
    pub routes: Vec<Route>,
    /// Permanent entries of the neighbour tables.
    pub neighbours: Vec<Neighbour>,
}

/// An Ethernet interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The hardware address that the device which stands for it was made with, by which the guest
    /// knows it.
    pub device: MacAddress,
    /// Its hardware address.
    pub mac: MacAddress,
    /// The most that a packet may hold, in bytes.
    pub mtu: u32,
    /// Its addresses, but for those of IPv6 that are local to the link: the guest makes its own.
    pub addresses: Vec<Address>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The interface's own.
    pub local: IpAddr,
    /// The other end's, if the link is from point to point.
    pub peer: Option<IpAddr>,
    /// The length of its network's prefix, in bits.
    pub prefix: u8,
    /// Whether the kernel makes no route to its network (`IFA_F_NOPREFIXROUTE`, ip-address(8)).
    pub no_prefix_route: bool,
}

/// A route for single destinations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where to: `0.0.0.0/0` or `::/0` for the default route.
    pub destination: IpAddr,
    /// The length of the destination's prefix, in bits.
    pub prefix: u8,
    /// Through whom; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address to use.
    pub source: Option<IpAddr>,
    /// The interface's name.
    pub interface: String,
    /// Which of several routes is preferred: the one with the least.
    pub metric: Option<u32>,
    /// Whether the gateway is on the link though no address says so.
    pub on_link: bool,
}

/// A permanent entry of a neighbour table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// Whose.
    pub address: IpAddr,
    /// Where.
    pub mac: MacAddress,
    /// The interface's name.
    pub interface: String,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

/// A text that is no Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an Ethernet address such as 02:00:00:00:00:01")]
pub struct InvalidMacAddress(String);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = InvalidMacAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let byte = |part: &str| {
            let well_formed = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            well_formed.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| InvalidMacAddress(text.to_owned()))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InvalidMacAddress;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_addresses() {
        let mac: MacAddress = "02:00:5e:AB:00:ff".parse().unwrap();
        assert_eq!(mac.0, [2, 0, 0x5e, 0xab, 0, 0xff]);
        assert_eq!(mac.to_string(), "02:00:5e:ab:00:ff");
        for text in
            ["", "02:00:5e:ab:00", "02:00:5e:ab:00:ff:00", "2:0:5:a:0:f", "+2:00:5e:ab:00:ff"]
        {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }
}
