//! The VM's disks, as the guest has them.
//!
//! The controller doesn't tell of disks that come and go. The agent looks for one when the host says
//! that it is there, and has the kernel forget it when no container has it any more, which also
//! writes back what the disk has cached. Then the host plugs it out.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxDeviceType, LinuxResources, Spec};
use runhcs_protocol::guest::{self, DeviceNumber, DiskPurpose, Failure};

use crate::boot;
use crate::scratch::Scratch;

/// Where the kernel lists SCSI hosts (sysfs(5)). The VM has one.
const HOSTS: &str = "/sys/class/scsi_host";
/// Where it lists SCSI devices, by host, channel, target and logical unit.
const DEVICES: &str = "/sys/class/scsi_device";
/// How long a disk that is there may take to be seen, and how often it is looked for: the kernel
/// makes its node a moment after it has found it.
const DEADLINE: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(2);

/// The disks that are in use.
#[derive(Debug, Default)]
pub struct Disks(RefCell<HashMap<u8, Weak<Disk>>>);

/// A disk; the kernel forgets it when this is dropped.
#[derive(Debug)]
pub struct Disk {
    /// Its node in `/dev`.
    pub node: PathBuf,
    number: DeviceNumber,
    /// The kernel's directory of it.
    device: PathBuf,
}

/// What a container has of disks, for as long as it exists. The order counts: a file system is
/// unmounted before its disk goes.
#[derive(Debug, Default)]
pub struct ContainersDisks {
    scratch: Option<Scratch>,
    disks: Vec<Rc<Disk>>,
    numbers: Numbers,
}

/// The guest's numbers of the host's devices.
type Numbers = HashMap<DeviceNumber, DeviceNumber>;

impl ContainersDisks {
    /// Replaces the host's numbers of block devices in new limits.
    ///
    /// # Errors
    /// Limits for a device that the container doesn't have.
    pub fn renumber(&self, resources: &mut LinuxResources) -> std::result::Result<(), Failure> {
        renumber_limits(resources, &self.numbers).map_err(failed)
    }
}

fn failed(error: anyhow::Error) -> Failure {
    Failure::from_error(error.as_ref())
}

impl Disks {
    /// Finds a container's disks and puts them into its configuration. `directory` is the
    /// container's own.
    ///
    /// # Errors
    /// A disk that isn't there, or that holds no file system where one is needed.
    pub async fn of(
        &self,
        disks: &[guest::Disk],
        spec: &mut Spec,
        directory: &Path,
    ) -> std::result::Result<ContainersDisks, Failure> {
        let mut of_container = ContainersDisks::default();
        for wanted in disks {
            let disk = self.find(wanted.target).await.map_err(failed)?;
            match wanted.purpose {
                DiskPurpose::Device(index) => {
                    let hosts = number_in_spec(spec, index).map_err(failed)?;
                    of_container.numbers.insert(hosts, disk.number);
                }
                DiskPurpose::Scratch => {
                    of_container.scratch = Some(Scratch::mount(&disk.node, spec, directory)?);
                }
            }
            of_container.disks.push(disk);
        }
        renumber(spec, &of_container.numbers).map_err(failed)?;
        Ok(of_container)
    }

    /// The disk that is this target of the controller.
    async fn find(&self, target: u8) -> Result<Rc<Disk>> {
        if let Some(disk) = self.0.borrow().get(&target).and_then(Weak::upgrade) {
            return Ok(disk);
        }
        boot::load_modules(boot::DISK_MODULE_LIST)?;
        let what = || format!("find disk {target} of the virtual machine");
        let disk = Rc::new(Disk::find(target).await.with_context(what)?);
        let mut known = self.0.borrow_mut();
        known.retain(|_, disk| disk.strong_count() > 0);
        known.insert(target, Rc::downgrade(&disk));
        Ok(disk)
    }
}

impl Disk {
    async fn find(target: u8) -> Result<Self> {
        let host = only_entry(Path::new(HOSTS))?.context("there is no disk controller")?;
        let number = host.trim_start_matches("host");
        let device = Path::new(DEVICES).join(format!("{number}:0:{target}:0")).join("device");
        if !device.exists() {
            // Channel, target, logical unit.
            let scan = Path::new(HOSTS).join(&host).join("scan");
            std::fs::write(&scan, format!("0 {target} 0"))
                .with_context(|| format!("write {}", scan.display()))?;
        }
        let seen = async {
            loop {
                if let Some(found) = Self::read(&device)? {
                    return Ok(found);
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        let found = tokio::time::timeout(DEADLINE, seen).await;
        found.context("the kernel doesn't see it")?
    }

    /// What the kernel says of it, if it has a node already.
    fn read(device: &Path) -> Result<Option<Self>> {
        let Some(name) = only_entry(&device.join("block"))? else { return Ok(None) };
        let text = std::fs::read_to_string(device.join("block").join(&name).join("dev"));
        let node = Path::new("/dev").join(&name);
        let Ok(text) = text else { return Ok(None) };
        if !node.exists() {
            return Ok(None);
        }
        let number = text.trim().parse().with_context(|| format!("the number of {name}"))?;
        // What the directory links to, so that it is found however its class is listed.
        let device = device.canonicalize().with_context(|| format!("find {name}"))?;
        Ok(Some(Self { node, number, device }))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let path = self.device.join("delete");
        if let Err(error) = std::fs::write(&path, "1") {
            tracing::warn!("the kernel doesn't let go of {}: {error}", self.node.display());
        }
    }
}

/// The name of the first entry of a directory, if there is one.
fn only_entry(directory: &Path) -> Result<Option<String>> {
    let what = || format!("list {}", directory.display());
    let mut entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries.with_context(what)?,
    };
    let entry = entries.next().transpose().with_context(what)?;
    Ok(entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
}

/// The host's number of a device.
fn number_in_spec(spec: &Spec, index: usize) -> Result<DeviceNumber> {
    let devices = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    let Some(device) = devices.and_then(|devices| devices.get(index)) else {
        bail!("linux.devices[{index}] is missing");
    };
    let part = |value: i64| {
        u32::try_from(value)
            .with_context(|| format!("linux.devices[{index}]: {value} is no number"))
    };
    Ok(DeviceNumber { major: part(device.major())?, minor: part(device.minor())? })
}

/// Replaces the host's numbers of block devices with the guest's, wherever a container's
/// configuration has them.
fn renumber(spec: &mut Spec, numbers: &Numbers) -> Result<()> {
    let Some(mut linux) = spec.linux().clone() else { return Ok(()) };
    for device in linux.devices_mut().iter_mut().flatten() {
        if device.typ() == LinuxDeviceType::B
            && let Some(number) = guests(numbers, device.major(), device.minor())
        {
            device.set_major(number.major.into());
            device.set_minor(number.minor.into());
        }
    }
    if let Some(resources) = linux.resources_mut() {
        renumber_limits(resources, numbers)?;
    }
    spec.set_linux(Some(linux));
    Ok(())
}

fn guests(numbers: &Numbers, major: i64, minor: i64) -> Option<DeviceNumber> {
    let number = DeviceNumber { major: major.try_into().ok()?, minor: minor.try_into().ok()? };
    numbers.get(&number).copied()
}

fn renumber_limits(resources: &mut LinuxResources, numbers: &Numbers) -> Result<()> {
    for rule in resources.devices_mut().iter_mut().flatten() {
        if rule.typ() == Some(LinuxDeviceType::B)
            && let (Some(major), Some(minor)) = (rule.major(), rule.minor())
            && let Some(number) = guests(numbers, major, minor)
        {
            rule.set_major(Some(number.major.into()));
            rule.set_minor(Some(number.minor.into()));
        }
    }
    // The types of these lists can't be changed in place.
    let Some(block_io) = resources.block_io() else { return Ok(()) };
    let mut block_io = serde_json::to_value(block_io).context("linux.resources.blockIO")?;
    for (name, list) in block_io.as_object_mut().into_iter().flatten() {
        for (index, device) in list.as_array_mut().into_iter().flatten().enumerate() {
            let part = |name: &str| device[name].as_i64().unwrap_or(-1);
            let (major, minor) = (part("major"), part("minor"));
            // The guest's device of that number is another's, or none.
            let number = guests(numbers, major, minor).with_context(|| {
                format!(
                    "linux.resources.blockIO.{name}[{index}]: the virtual machine has no device \
                     {major}:{minor} for this container; name it in linux.devices, too"
                )
            })?;
            device["major"] = number.major.into();
            device["minor"] = number.minor.into();
        }
    }
    let block_io = serde_json::from_value(block_io).context("linux.resources.blockIO")?;
    resources.set_block_io(Some(block_io));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_gets_the_guests_numbers_and_only_once() {
        let mut spec: Spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.0.2",
            "linux": {
                "devices": [
                    { "path": "/dev/a", "type": "b", "major": 7, "minor": 0 },
                    { "path": "/dev/b", "type": "b", "major": 8, "minor": 0 },
                    { "path": "/dev/c", "type": "c", "major": 7, "minor": 0 },
                ],
                "resources": {
                    "devices": [
                        { "allow": false, "access": "rwm" },
                        { "allow": true, "type": "b", "major": 7, "minor": 0, "access": "rw" },
                        { "allow": true, "type": "b", "major": 7, "access": "r" },
                    ],
                    "blockIO": {
                        "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 5 }]
                    },
                },
            },
        }))
        .unwrap();
        let number = |major, minor| DeviceNumber { major, minor };
        // The one's new number is the other's old one.
        let numbers = HashMap::from([
            (number_in_spec(&spec, 0).unwrap(), number(8, 0)),
            (number_in_spec(&spec, 1).unwrap(), number(8, 16)),
        ]);
        renumber(&mut spec, &numbers).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        let devices: Vec<_> =
            linux.devices().iter().flatten().map(|d| (d.major(), d.minor())).collect();
        assert_eq!(devices, [(8, 0), (8, 16), (7, 0)]);
        let resources = linux.resources().as_ref().unwrap();
        let rules: Vec<_> =
            resources.devices().iter().flatten().map(|r| (r.major(), r.minor())).collect();
        assert_eq!(rules, [(None, None), (Some(8), Some(0)), (Some(7), None)]);
        let block_io = resources.block_io().as_ref().unwrap();
        let throttled = &block_io.throttle_read_bps_device().as_ref().unwrap()[0];
        assert_eq!((throttled.major(), throttled.minor()), (8, 16));
        // Of a device that the guest doesn't have.
        let error = renumber(&mut spec, &HashMap::new()).unwrap_err().to_string();
        assert!(error.contains("blockIO.throttleReadBpsDevice[0]"), "{error}");
        assert!(error.contains("8:16"), "{error}");
        assert!(number_in_spec(&spec, 3).unwrap_err().to_string().contains("linux.devices[3]"));
    }
}
