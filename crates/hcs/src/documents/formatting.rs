//! The throw-away virtual machine with a Linux guest in which disks get a file system, and what is
//! run in it.

use super::{Change, GuestPorts, SCSI_CONTROLLERS, ScsiSlot, lcow_vm};
use crate::options::{LcowOptions, VmOptions};
use crate::schema::{AttachmentType, ComputeSystem, ProcessParameters};

/// How ext4 is made: everything at once, for the disk is copied and never grows; nothing
/// discarded, for it is new; no journal, for what is written to it is not kept.
const MAKE_EXT4: [&str; 6] = [
    "mkfs.ext4",
    "-q",
    "-E",
    "lazy_itable_init=0,nodiscard",
    "-O",
    "^has_journal,sparse_super2,^resize_inode",
];

/// The machine: that of a Linux guest, but with one SCSI controller, so that its number in the
/// guest is known to be 0.
pub fn formatting_vm(
    vm_id: &str,
    owner: &str,
    options: &VmOptions,
    guest: &LcowOptions,
) -> ComputeSystem {
    let mut document = lcow_vm(vm_id, owner, options, guest, GuestPorts::default());
    let machine = document.virtual_machine.as_mut();
    if let Some(devices) = machine.and_then(|machine| machine.devices.as_mut()) {
        devices.scsi.retain(|id, _| id == SCSI_CONTROLLERS[0]);
    }
    document
}

/// A disk that the guest gets, but doesn't mount: a file, or a disk of the host, which has to be
/// offline there.
pub fn bare_disk(slot: ScsiSlot, path: &str) -> Change {
    let kind =
        if is_physical(path) { AttachmentType::PassThru } else { AttachmentType::VirtualDisk };
    Change::scsi(slot, kind, path, false, None)
}

/// Whether a path names a disk of the host: `\\.\PHYSICALDRIVE0`.
pub fn is_physical(path: &str) -> bool {
    const PREFIX: &str = r"\\.\PHYSICALDRIVE";
    let path = path.replace('/', r"\");
    path.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// The guest's directory with the name of a disk's device, once it has found the disk.
pub fn block_directory(slot: ScsiSlot) -> String {
    format!("/sys/bus/scsi/devices/{}:0:0:{}/block", slot.controller, slot.lun)
}

/// The device's path, from what the directory holds.
pub fn device_path(listing: &str) -> Option<String> {
    let mut names = listing.split_whitespace();
    let (name, more) = (names.next()?, names.next());
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (plain && more.is_none()).then(|| format!("/dev/{name}"))
}

/// The arguments that make ext4 on a device.
pub fn make_ext4(device: &str) -> Vec<String> {
    MAKE_EXT4.iter().copied().chain([device]).map(str::to_owned).collect()
}

/// A process of the guest itself, whose outputs are read.
pub fn guest_process(arguments: Vec<String>) -> ProcessParameters {
    ProcessParameters {
        command_args: arguments,
        working_directory: "/".to_owned(),
        environment: [("PATH".to_owned(), "/sbin:/usr/sbin:/bin:/usr/bin".to_owned())].into(),
        create_std_out_pipe: true,
        create_std_err_pipe: true,
        ..ProcessParameters::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_one_plain_name() {
        assert_eq!(device_path("sdb\n").as_deref(), Some("/dev/sdb"));
        for listing in ["", "\n", "sda sdb", "../etc/passwd", "sda;reboot"] {
            assert_eq!(device_path(listing), None, "{listing:?}");
        }
    }

    #[test]
    fn disks_of_the_host_are_told_from_files() {
        for path in [r"\\.\PHYSICALDRIVE1", r"\\.\PhysicalDrive12", "//./PhysicalDrive0"] {
            assert!(is_physical(path), "{path}");
        }
        for path in [r"C:\PHYSICALDRIVE1", r"\\.\pipe\x", "é", r"\\?\C:\a.vhdx"] {
            assert!(!is_physical(path), "{path}");
        }
    }
}
