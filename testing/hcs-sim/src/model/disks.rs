//! Virtual disks: their files, and what a Linux guest finds of those that it has.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Failure, System, text};
use crate::hresult::{self, Hresult};

/// What every VHDX file begins with ([MS-VHDX]).
const SIGNATURE: &[u8] = b"vhdxfile";
/// The length of the files, whatever the disk's size: room for what the guest writes.
const LENGTH: u64 = 4096;
/// The least and the most bytes of a disk.
const SIZES: std::ops::RangeInclusive<u64> = 3 << 20..=64 << 40;

/// A disk that a Linux guest has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestDisk {
    /// Its controller's number.
    pub controller: usize,
    /// Its unit.
    pub unit: u8,
    /// Its device's name: `sda`.
    pub name: String,
    /// Its file, or the host's disk.
    pub path: String,
    /// Whether the guest can't write to it.
    pub read_only: bool,
}

/// Whether a path names a disk of the host.
pub fn is_physical(path: &str) -> bool {
    path.to_ascii_uppercase().strip_prefix(r"\\.\PHYSICALDRIVE").is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Makes a disk's file: the signature, the size, and nothing yet.
///
/// # Errors
/// If it is there already, can't be made, or can't be of this size.
pub fn create_disk(path: &str, size: u64) -> Result<(), Failure> {
    if !SIZES.contains(&size) || !size.is_multiple_of(512) {
        let message = format!("a disk can't have {size} bytes");
        return Err(Failure::new(hresult::INVALID_ARGUMENT, message));
    }
    if !Path::new(path).is_absolute() {
        return Err(Failure::new(hresult::INVALID_ARGUMENT, format!("{path} is not absolute")));
    }
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(SIGNATURE)?;
        file.write_all(&size.to_le_bytes())?;
        file.set_len(LENGTH)
    };
    write().map_err(|error| {
        Failure::new(Hresult::from_system(&error), format!("make {path}: {error}"))
    })
}

impl System {
    /// The disks that the guest of a virtual machine has, in the order of their places, which
    /// Linux names them by.
    pub fn guest_disks(&self) -> Vec<GuestDisk> {
        let controllers = self.document["VirtualMachine"]["Devices"]["Scsi"].as_object();
        let mut places = std::collections::BTreeMap::new();
        for (number, (id, controller)) in controllers.into_iter().flatten().enumerate() {
            let attached = controller["Attachments"].as_object().into_iter().flatten();
            let attached = attached.map(|(unit, disk)| (unit.clone(), disk.clone()));
            let prefix = format!("VirtualMachine/Devices/Scsi/{id}/Attachments/");
            let added = self.resources.iter().filter_map(|(key, disk)| {
                Some((key.strip_prefix(&prefix)?.to_owned(), disk.clone()))
            });
            for (unit, disk) in attached.chain(added) {
                if let Ok(unit) = unit.parse::<u8>() {
                    places.insert((number, unit), disk);
                }
            }
        }
        let named = places.into_iter().zip('a'..='z');
        named
            .map(|(((controller, unit), disk), letter)| found(controller, unit, letter, &disk))
            .collect()
    }
}

fn found(controller: usize, unit: u8, letter: char, disk: &Value) -> GuestDisk {
    GuestDisk {
        controller,
        unit,
        name: format!("sd{letter}"),
        path: text(disk, "Path").unwrap_or_default().to_owned(),
        read_only: disk["ReadOnly"] == true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_disk_has_its_signature_and_is_never_an_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new.vhdx");
        let path = path.to_str().unwrap();
        create_disk(path, 20 << 30).unwrap();
        let content = std::fs::read(path).unwrap();
        assert_eq!((&content[..8], content.len()), (SIGNATURE, 4096));
        assert!(create_disk(path, 20 << 30).is_err());
        for (path, size) in [("relative.vhdx", 20 << 30), ("/none/new.vhdx", 20 << 30)] {
            assert!(create_disk(path, size).is_err(), "{path}");
        }
        let other = directory.path().join("other.vhdx");
        assert!(create_disk(other.to_str().unwrap(), 1000).is_err());
    }

    #[test]
    fn disks_of_the_host_have_numbers() {
        assert!(is_physical(r"\\.\PhysicalDrive10"));
        for path in [r"\\.\PhysicalDrive", r"\\.\PhysicalDriveX", r"C:\PhysicalDrive1"] {
            assert!(!is_physical(path), "{path}");
        }
    }
}
