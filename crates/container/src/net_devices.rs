//! `linux.netDevices`: network devices of the host that a container gets. They are moved into its
//! network namespace with their addresses and brought up there; what becomes of them later is the
//! namespace's matter (config-linux.md, "Network Devices").

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::LinkAttribute;
use oci_spec::runtime::Spec;
use runhcs_compute::{Error, Result};

use crate::error::{Context, invalid};
use crate::rtnetlink::{Link, RtNetlink};

/// linux/if.h, IFNAMSIZ, without the end of the string.
const LONGEST_NAME: usize = 15;

/// The devices of a configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetDevices(Vec<NetDevice>);

#[derive(Clone, Debug, PartialEq)]
struct NetDevice {
    host_name: String,
    /// With `%d` in it, the kernel's choice of a number.
    name: String,
}

impl NetDevices {
    /// Reads `linux.netDevices`.
    ///
    /// # Errors
    /// Names the entry that is no device's name, or that is there twice.
    pub fn new(spec: &Spec) -> Result<Self> {
        let listed = spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
        let mut devices = Vec::<NetDevice>::new();
        for (host_name, device) in listed.into_iter().flatten() {
            let field = format!("linux.netDevices.{host_name}");
            let name = device.name().as_deref().filter(|name| !name.is_empty());
            let name = name.unwrap_or(host_name);
            check_name(host_name, false).map_err(|why| invalid(field.clone(), why))?;
            check_name(name, true).map_err(|why| invalid(format!("{field}.name"), why))?;
            if !name.contains('%') && devices.iter().any(|other| other.name == name) {
                let why = format!("{name:?} is another device's name, too");
                return Err(invalid(format!("{field}.name"), why));
            }
            devices.push(NetDevice { host_name: host_name.clone(), name: name.to_owned() });
        }
        // Always in the same order, whatever the map's is.
        devices.sort_by(|a, b| a.host_name.cmp(&b.host_name));
        Ok(Self(devices))
    }

    /// Whether there is nothing to move.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Moves them from the caller's network namespace into another one. The caller must have one
    /// thread only.
    ///
    /// # Errors
    /// If one is missing, its name is taken there, or it can't be moved; then all are back.
    pub fn move_to(&self, namespace: OwnedFd) -> Result<MovedDevices> {
        let here = RtNetlink::here().context(|| "open a netlink socket".into())?;
        let there = RtNetlink::within(&namespace)?;
        let mut moved = MovedDevices { here, there, namespace, back: Vec::new() };
        for device in &self.0 {
            moved.take(device).context(|| format!("linux.netDevices.{}", device.host_name))?;
        }
        Ok(moved)
    }
}

/// As the kernel has it (`dev_valid_name`), and at most one `%d`, where there may be any.
fn check_name(name: &str, may_be_template: bool) -> std::result::Result<(), String> {
    let plain = if may_be_template { name.replacen("%d", "", 1) } else { name.to_owned() };
    let unfit = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
    if name.is_empty() || matches!(name, "." | "..") || plain.contains(unfit) {
        return Err(format!("{name:?} is no name of a network device"));
    }
    if name.len() > LONGEST_NAME {
        return Err(format!("{name:?} is longer than {LONGEST_NAME} characters"));
    }
    Ok(())
}

/// Devices that were moved. Dropping it brings them back, unless they are left there.
#[derive(Debug)]
pub struct MovedDevices {
    here: RtNetlink,
    there: RtNetlink,
    namespace: OwnedFd,
    back: Vec<Moved>,
}

#[derive(Debug)]
struct Moved {
    was: Link,
    /// Its index there.
    index: u32,
    addresses: Vec<AddressMessage>,
}

impl MovedDevices {
    /// Leaves them where they are.
    pub fn leave(mut self) {
        self.back.clear();
    }

    fn take(&mut self, device: &NetDevice) -> Result<()> {
        let list = || "list the network devices".to_owned();
        let links = self.here.links().context(list)?;
        let Some(was) = links.into_iter().find(|link| link.name == device.host_name) else {
            return Err(Error::failed("find it", "the host has no such device"));
        };
        let before = self.there.links().context(list)?;
        if before.iter().any(|link| link.name == device.name) {
            let why = format!("the container's network namespace has a device {:?}", device.name);
            return Err(Error::failed("move it", why));
        }
        let addresses = self.here.addresses(was.index).context(|| "list its addresses".into())?;
        let addresses: Vec<_> = addresses.into_iter().filter_map(lasting).collect();
        let mut attributes = vec![LinkAttribute::NetNsFd(self.namespace.as_raw_fd())];
        attributes
            .extend((device.name != was.name).then(|| LinkAttribute::IfName(device.name.clone())));
        self.here
            .set_link(was.index, None, attributes)
            .context(|| "move it to the container's network namespace".into())?;
        // With an index that is taken there, it gets another one.
        let after = self.there.links().context(list)?;
        let new = |link: &&Link| !before.iter().any(|known| known.index == link.index);
        let index = after.iter().find(new).map(|link| link.index);
        let index = index.ok_or_else(|| Error::failed("find it", "it has not arrived"))?;
        self.back.push(Moved { was, index, addresses: addresses.clone() });
        bring_up(&mut self.there, index, addresses)
            .context(|| "bring it up in the container's network namespace".into())
    }

    fn bring_back(&mut self, own: &OwnedFd, moved: Moved) -> std::io::Result<()> {
        let attributes = vec![
            LinkAttribute::NetNsFd(own.as_raw_fd()),
            LinkAttribute::IfName(moved.was.name.clone()),
        ];
        self.there.set_link(moved.index, None, attributes)?;
        let links = self.here.links()?;
        let Some(link) = links.iter().find(|link| link.name == moved.was.name) else {
            return Err(std::io::Error::other("it has not arrived"));
        };
        if moved.was.is_up {
            return bring_up(&mut self.here, link.index, moved.addresses);
        }
        moved.addresses.into_iter().try_for_each(|address| add(&mut self.here, link.index, address))
    }
}

impl Drop for MovedDevices {
    fn drop(&mut self) {
        let back = std::mem::take(&mut self.back);
        if back.is_empty() {
            return;
        }
        let own = File::open("/proc/self/ns/net").map(OwnedFd::from);
        for moved in back.into_iter().rev() {
            let name = moved.was.name.clone();
            let outcome = match &own {
                Ok(own) => self.bring_back(own, moved),
                Err(error) => Err(std::io::Error::from(error.kind())),
            };
            if let Err(error) = outcome {
                tracing::error!("network device {name} can't be brought back: {error}");
            }
        }
    }
}

fn bring_up(
    netlink: &mut RtNetlink,
    index: u32,
    addresses: Vec<AddressMessage>,
) -> std::io::Result<()> {
    netlink.set_link(index, Some(true), Vec::new())?;
    addresses.into_iter().try_for_each(|address| add(netlink, index, address))
}

fn add(netlink: &mut RtNetlink, index: u32, mut address: AddressMessage) -> std::io::Result<()> {
    address.header.index = index;
    netlink.add_address(address)
}

/// An address as it is to be given to the device again, if it is one that goes with it: permanent
/// and known to the world.
fn lasting(mut address: AddressMessage) -> Option<AddressMessage> {
    let flags = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let flags =
        flags.unwrap_or_else(|| AddressFlags::from_bits_retain(address.header.flags.bits().into()));
    let is_lasting =
        address.header.scope == AddressScope::Universe && flags.contains(AddressFlags::Permanent);
    if !is_lasting {
        return None;
    }
    // The rest is the kernel's to say: its label has the old name, its times have passed.
    address.attributes.retain(|attribute| {
        matches!(
            attribute,
            AddressAttribute::Address(_)
                | AddressAttribute::Local(_)
                | AddressAttribute::Broadcast(_)
                | AddressAttribute::RoutePriority(_)
        )
    });
    // It was this device's before, so nobody else has it.
    let kept = flags & (AddressFlags::Noprefixroute | AddressFlags::Homeaddress);
    address.attributes.push(AddressAttribute::Flags(kept | AddressFlags::Nodad));
    address.header.flags = AddressHeaderFlags::empty();
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(devices: &str) -> Result<NetDevices> {
        let json = format!(r#"{{"ociVersion":"1.3.0","linux":{{"netDevices":{devices}}}}}"#);
        NetDevices::new(&serde_json::from_str(&json).unwrap())
    }

    #[test]
    fn a_device_keeps_its_name_unless_it_gets_another() {
        let devices = parse(r#"{"eth1":{"name":"net%d"},"eth0":{},"eth2":{"name":"net%d"}}"#);
        let names: Vec<_> =
            devices.unwrap().0.into_iter().map(|d| format!("{}={}", d.host_name, d.name)).collect();
        assert_eq!(names, ["eth0=eth0", "eth1=net%d", "eth2=net%d"]);
        assert!(parse("{}").unwrap().is_empty());
    }

    #[test]
    fn nonsense_is_named_by_its_field() {
        for (devices, field) in [
            (r#"{"":{}}"#, ""),
            (r#"{"a/b":{}}"#, "a/b"),
            (r#"{"..":{}}"#, ".."),
            (r#"{"eth%d":{}}"#, "eth%d"),
            (r#"{"sixteen-and-more":{}}"#, "sixteen-and-more"),
            (r#"{"a":{"name":"b c"}}"#, "a.name"),
            (r#"{"a":{"name":"b%d%d"}}"#, "a.name"),
            (r#"{"a":{"name":"b%s"}}"#, "a.name"),
            (r#"{"a":{"name":"12345678901234%d"}}"#, "a.name"),
        ] {
            let error = parse(devices).unwrap_err();
            assert_eq!(error.to_string(), format!("linux.netDevices.{field}"), "{devices}");
        }
        let twice = parse(r#"{"a":{"name":"x"},"b":{"name":"x"}}"#).unwrap_err();
        assert!(twice.to_string().ends_with(".name"), "{twice}");
    }
}
