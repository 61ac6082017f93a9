//! Makes the guest's first network namespace hold the pod's network, as it is on the host.
//!
//! The VM has spare network devices, for interfaces that are added while it runs. Those that stand
//! for nothing have no driver, so that nobody in the guest sees them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use runhcs_protocol::network::Network;

use crate::boot;

/// Where the kernel lists virtio devices (sysfs(5)).
const DEVICES: &str = "/sys/bus/virtio/devices";
/// The driver of virtio's network devices.
const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_net";
/// The type of a network device (virtio specification, 5.1.1), as sysfs writes it.
const NETWORK_DEVICE: &str = "0x0001";

/// Makes it so; to be called again whenever the network changes.
///
/// # Errors
/// What couldn't be set up; the rest may have been.
pub async fn configure(network: Network) -> Result<()> {
    boot::load_modules(boot::NETWORK_MODULE_LIST)?;
    for device in network_devices()? {
        if !device.join("driver").exists() {
            tell_driver("bind", &device)?;
        }
    }
    let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
    let connection = tokio::task::spawn_local(connection);
    let outcome = async {
        // First, for one of them may have a name that is wanted.
        hide_unused(&handle, &network).await?;
        runhcs_network::apply(&handle, &network).await
    }
    .await;
    connection.abort();
    outcome
}

/// Takes the driver away from devices that stand for no interface.
async fn hide_unused(handle: &rtnetlink::Handle, network: &Network) -> Result<()> {
    for name in runhcs_network::unused(handle, network).await? {
        let link = format!("/sys/class/net/{name}/device");
        // Other drivers' devices, such as dummies, are none of the VM's.
        if let Ok(device) = fs::canonicalize(&link)
            && device.join("driver").canonicalize().is_ok_and(|driver| driver == Path::new(DRIVER))
        {
            tell_driver("unbind", &device)?;
        }
    }
    Ok(())
}

fn network_devices() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(DEVICES).with_context(|| format!("list {DEVICES}"))? {
        let path = entry.with_context(|| format!("list {DEVICES}"))?.path();
        let kind = fs::read_to_string(path.join("device"));
        if kind.is_ok_and(|kind| kind.trim() == NETWORK_DEVICE) {
            found.push(path);
        }
    }
    Ok(found)
}

fn tell_driver(what: &str, device: &Path) -> Result<()> {
    let name = device.file_name().context("a device has no name")?.as_encoded_bytes();
    let file = format!("{DRIVER}/{what}");
    fs::write(&file, name).with_context(|| format!("write {} to {file}", device.display()))
}
