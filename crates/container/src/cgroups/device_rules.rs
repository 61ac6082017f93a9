//! `linux.resources.devices`, parsed once for both versions.

use oci_spec::runtime::{LinuxDeviceType, LinuxResources};
use runhcs_compute::Result;

use super::device_filter::{Access, Kind, Rule};
use crate::error::invalid;

/// What every container may do, whatever the rules say: make nodes, and use the default devices
/// (as runc and crun have it).
const DEFAULTS: [(Kind, Option<u32>, Option<u32>, &str); 11] = [
    (Kind::Char, None, None, "m"),
    (Kind::Block, None, None, "m"),
    (Kind::Char, Some(1), Some(3), "rwm"),
    (Kind::Char, Some(1), Some(5), "rwm"),
    (Kind::Char, Some(1), Some(7), "rwm"),
    (Kind::Char, Some(1), Some(8), "rwm"),
    (Kind::Char, Some(1), Some(9), "rwm"),
    (Kind::Char, Some(5), Some(0), "rwm"),
    (Kind::Char, Some(5), Some(1), "rwm"),
    (Kind::Char, Some(5), Some(2), "rwm"),
    (Kind::Char, Some(136), None, "rwm"),
];

/// The rules, the defaults last; `None` if the configuration has none and all is allowed.
pub(crate) fn parse(resources: Option<&LinuxResources>) -> Result<Option<Vec<Rule>>> {
    let listed = match resources.and_then(|resources| resources.devices().as_ref()) {
        None => return Ok(None),
        Some(listed) if listed.is_empty() => return Ok(None),
        Some(listed) => listed,
    };
    let mut rules = Vec::with_capacity(listed.len() + DEFAULTS.len());
    for (index, device) in listed.iter().enumerate() {
        let field = |name: &str| format!("linux.resources.devices[{index}].{name}");
        let kind = match device.typ() {
            None | Some(LinuxDeviceType::A) => Kind::All,
            Some(LinuxDeviceType::B) => Kind::Block,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Kind::Char,
            Some(LinuxDeviceType::P) => return Err(invalid(field("type"), "a FIFO is no device")),
        };
        let number = |name, value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            Some(value) => u32::try_from(value)
                .map(Some)
                .map_err(|_| invalid(field(name), format!("{value} is out of range"))),
        };
        let access = match device.access().as_deref() {
            None | Some("") => Access::ALL,
            Some(letters) => Access::parse(letters).ok_or_else(|| {
                invalid(field("access"), format!("{letters:?} has letters other than r, w, m"))
            })?,
        };
        rules.push(Rule {
            allow: device.allow(),
            kind,
            major: number("major", device.major())?,
            minor: number("minor", device.minor())?,
            access,
        });
    }
    rules.extend(DEFAULTS.iter().filter_map(|(kind, major, minor, access)| {
        Some(Rule {
            allow: true,
            kind: *kind,
            major: *major,
            minor: *minor,
            access: Access::parse(access)?,
        })
    }));
    Ok(Some(rules))
}
