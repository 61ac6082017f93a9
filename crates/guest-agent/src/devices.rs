//! Drivers of devices that only some containers have. On a host udev or the kernel's own call of
//! modprobe loads them; the guest has neither.

use anyhow::Result;
use oci_spec::runtime::{LinuxDeviceType, Spec};

use crate::boot;

/// What makes tunnels, `/dev/net/tun` (Documentation/networking/tuntap.rst).
const TUN: (i64, i64) = (10, 200);

/// Loads the drivers of the devices that a configuration lists.
///
/// # Errors
/// If the kernel refuses one.
pub fn load_drivers(spec: &Spec) -> Result<()> {
    if has_tun(spec) { boot::load_modules(boot::TUN_MODULE_LIST) } else { Ok(()) }
}

fn has_tun(spec: &Spec) -> bool {
    let devices = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    devices.into_iter().flatten().any(|device| {
        matches!(device.typ(), LinuxDeviceType::C | LinuxDeviceType::U)
            && (device.major(), device.minor()) == TUN
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_for_tunnels_is_known_by_its_number() {
        let has = |devices: serde_json::Value| {
            let spec =
                serde_json::json!({ "ociVersion": "1.2.0", "linux": { "devices": devices } });
            has_tun(&serde_json::from_value(spec).unwrap())
        };
        let device = |kind: &str, minor: u32| serde_json::json!({ "path": "/any", "type": kind, "major": 10, "minor": minor });
        assert!(has(serde_json::json!([device("c", 229), device("c", 200)])));
        assert!(!has(serde_json::json!([device("c", 229), device("b", 200)])));
        assert!(!has(serde_json::json!([])));
    }
}
