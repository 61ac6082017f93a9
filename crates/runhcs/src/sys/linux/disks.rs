//! The disks of a container in a VM: block devices of this host that its configuration names, and
//! the scratch disk that it asks for. All are opened here; whoever needs them later is given the
//! descriptors.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, Spec};
use runhcs_protocol::guest::{DeviceNumber, DiskPurpose};
use runhcs_protocol::shim::{Disk, DiskAccess};
use runhcs_spec::Scratch;
use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, flock, makedev};
use rustix::io::Errno;

use super::ext4;

/// Opens a container's disks. `directory` is where new scratch disks are made.
///
/// # Errors
/// The field or annotation that names what can't be had, and why.
pub fn open(spec: &Spec, directory: &Path) -> Result<Vec<(Disk, OwnedFd)>> {
    let mut disks = Vec::new();
    let linux = spec.linux().as_ref();
    let devices = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    let rules = linux
        .and_then(|linux| linux.resources().as_ref())
        .and_then(|resources| resources.devices().as_deref())
        .unwrap_or_default();
    for (index, device) in devices.iter().enumerate() {
        if device.typ() != LinuxDeviceType::B {
            continue;
        }
        let what = || format!("linux.devices[{index}] ({})", device.path().display());
        let part = |value: i64| u32::try_from(value).context("its number is out of range");
        let number = part(device.major())
            .and_then(|major| Ok(DeviceNumber { major, minor: part(device.minor())? }))
            .with_context(what)?;
        let writable = may_write(rules, number);
        let (access, file) = open_device(number, writable).with_context(what)?;
        disks.push((Disk { purpose: DiskPurpose::Device(index), access }, file));
    }
    if let Some(scratch) = Scratch::from_spec(spec)? {
        let file = match &scratch {
            Scratch::New { mib } => ext4::anonymous(directory, *mib),
            Scratch::Kept(path) => open_kept(path),
        };
        let file = file.context("io.runhcs.scratch")?;
        let access = DiskAccess::Exclusive;
        disks.push((Disk { purpose: DiskPurpose::Scratch, access }, file));
    }
    Ok(disks)
}

/// Refuses a scratch disk where there is no VM to use it.
pub fn refuse_scratch(spec: &Spec) -> Result<()> {
    if Scratch::from_spec(spec)?.is_some() {
        bail!(
            "io.runhcs.scratch: only containers in a VM have scratch disks; this one is isolated \
             as a process, and writes to its root file system"
        );
    }
    Ok(())
}

/// Whether the rules, of which a later one counts more, let the container write to a device. With
/// no rules everything is allowed.
fn may_write(rules: &[LinuxDeviceCgroup], number: DeviceNumber) -> bool {
    let same = |rule: Option<i64>, number: u32| {
        rule.is_none_or(|wanted| wanted == -1 || wanted == i64::from(number))
    };
    let mut writable = rules.is_empty();
    for rule in rules {
        let kind = matches!(rule.typ(), None | Some(LinuxDeviceType::A | LinuxDeviceType::B));
        let access = rule.access().as_deref().filter(|access| !access.is_empty());
        let write = access.is_none_or(|access| access.contains('w'));
        if kind && write && same(rule.major(), number.major) && same(rule.minor(), number.minor) {
            writable = rule.allow();
        }
    }
    writable
}

fn open_device(number: DeviceNumber, writable: bool) -> Result<(DiskAccess, OwnedFd)> {
    let node = node_of(number)?;
    let what = || format!("open {}", node.display());
    let directory = format!("/sys/dev/block/{number}");
    let fixed = std::fs::read_to_string(format!("{directory}/ro")).is_ok_and(|ro| ro.trim() != "0");
    let open = |flags| rustix::fs::open(&node, flags | OFlags::CLOEXEC, Mode::empty());
    let (access, file) = if !writable || fixed {
        (DiskAccess::ReadOnly, open(OFlags::RDONLY).with_context(what)?)
    } else {
        // What is mounted, or otherwise in use, can't be had exclusively (open(2), O_EXCL).
        match open(OFlags::RDWR | OFlags::EXCL) {
            Ok(file) => (DiskAccess::Exclusive, file),
            Err(Errno::BUSY) => (DiskAccess::InUse, open(OFlags::RDWR).with_context(what)?),
            Err(error) => return Err(error).with_context(what),
        }
    };
    let stat = rustix::fs::fstat(&file).with_context(what)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice
        || stat.st_rdev != makedev(number.major, number.minor)
    {
        bail!("{} is not block device {number}", node.display());
    }
    Ok((access, file))
}

/// Where this host has a block device, as its kernel names it.
fn node_of(number: DeviceNumber) -> Result<PathBuf> {
    let path = format!("/sys/dev/block/{number}/uevent");
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("this host has no block device {number}")
        }
        text => text.with_context(|| format!("read {path}"))?,
    };
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let name = name.with_context(|| format!("{path} doesn't name the device"))?;
    Ok(Path::new("/dev").join(name))
}

/// Opens a scratch disk that stays, for this container alone.
fn open_kept(path: &Path) -> Result<OwnedFd> {
    let what = || format!("open the scratch disk {}", path.display());
    let in_use = || {
        format!("the scratch disk {} is in use by another container or this host", path.display())
    };
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let stat = rustix::fs::statat(CWD, path, rustix::fs::AtFlags::empty()).with_context(what)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => {
            match rustix::fs::open(path, flags | OFlags::EXCL, Mode::empty()) {
                Err(Errno::BUSY) => bail!(in_use()),
                file => file.with_context(what),
            }
        }
        FileType::RegularFile => {
            let file = rustix::fs::open(path, flags, Mode::empty()).with_context(what)?;
            // Held as long as somebody has the descriptor, and so as long as the VM has the disk.
            match flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => bail!(in_use()),
                locked => locked.with_context(what)?,
            }
            Ok(file)
        }
        kind => bail!("{} is a {kind:?}, neither an image nor a block device", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_that_concerns_a_device_counts() {
        let rules = |list: serde_json::Value| -> Vec<LinuxDeviceCgroup> {
            serde_json::from_value(list).unwrap()
        };
        let number = DeviceNumber { major: 7, minor: 1 };
        let deny = serde_json::json!({ "allow": false, "access": "rwm" });
        let allow = |access: &str, minor: i64| {
            serde_json::json!({
                "allow": true, "type": "b", "major": 7, "minor": minor, "access": access
            })
        };
        for (list, expected) in [
            (vec![], true),
            (vec![deny.clone()], false),
            (vec![deny.clone(), allow("rw", 1)], true),
            (vec![deny.clone(), allow("r", 1)], false),
            (vec![deny.clone(), allow("rwm", 2)], false),
            (vec![deny.clone(), allow("rwm", -1)], true),
            (vec![allow("rwm", 1), deny], false),
        ] {
            let list = serde_json::Value::from(list);
            assert_eq!(may_write(&rules(list.clone()), number), expected, "{list}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let number = DeviceNumber { major: 4000, minor: 7 };
        let error = open_device(number, true).unwrap_err().to_string();
        assert_eq!(error, "this host has no block device 4000:7");
    }
}
