//! The slots of a `microvm` for virtio devices, as ACPI describes them.
//!
//! QEMU's own description has the slots alone that hold a device when the VM boots. A template has
//! no devices then, and its kernel has to know where they are going to be. So its initramfs brings
//! a table that describes all slots (Documentation/admin-guide/acpi/initrd_table_override.rst).

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, Interrupt, Memory32Fixed, Name, ONE, Path, ResourceTemplate, Scope,
};
use acpi_tables::sdt::Sdt;
use runhcs_cpio::{Archive, Entry};

/// How many there are if the machine has a second I/O APIC, as it has with ACPI
/// (hw/i386/microvm.c in QEMU, for this and what follows).
const SLOTS: u8 = 24;
/// Where the first one's registers are.
const REGISTERS: u32 = 0xfeb0_0000;
/// Bytes of a slot's registers.
const REGISTERS_SIZE: u32 = 512;
/// The first one's interrupt, that of the second I/O APIC's first pin.
const INTERRUPT: u32 = 24;

/// An archive to be put before the guest's own initramfs.
pub fn archive() -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in ["kernel", "kernel/firmware", "kernel/firmware/acpi"] {
        archive.add(directory, &Entry::Directory);
    }
    archive.add("kernel/firmware/acpi/slots.aml", &Entry::File(&table(), false));
    archive.finish()
}

/// The table: QEMU fills the slots from the last to the first, and so the table lists them.
fn table() -> Vec<u8> {
    let mut slots = Vec::new();
    for number in (0..SLOTS).rev() {
        slot(number, &mut slots);
    }
    let body = Scope::raw(Path::new("_SB_"), slots);
    let mut table = Sdt::new(*b"SSDT", 36, 2, *b"RUNHCS", *b"SLOTS   ", 1);
    table.append_slice(&body);
    table.as_slice().to_vec()
}

fn slot(number: u8, table: &mut Vec<u8>) {
    let n = u32::from(number);
    let registers = Memory32Fixed::new(true, REGISTERS + n * REGISTERS_SIZE, REGISTERS_SIZE);
    let interrupt = Interrupt::new(true, false, false, false, INTERRUPT + n);
    let resources = ResourceTemplate::new(vec![&registers, &interrupt]);
    let id = Name::new(Path::new("_HID"), &"LNRO0005");
    let number_in_kind = Name::new(Path::new("_UID"), &number);
    let coherent = Name::new(Path::new("_CCA"), &ONE);
    let resources = Name::new(Path::new("_CRS"), &resources);
    let name = format!("RH{number:02}");
    let device = Device::new(Path::new(&name), vec![&id, &number_in_kind, &coherent, &resources]);
    device.to_aml_bytes(table);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_adds_up() {
        let table = table();
        let length = u32::from_le_bytes(table[4..8].try_into().unwrap());
        assert_eq!(length as usize, table.len());
        assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        let ids = table.windows(8).filter(|bytes| bytes == b"LNRO0005").count();
        assert_eq!(ids, usize::from(SLOTS));
        // The last one's registers.
        let last = 0xfeb0_2e00u32.to_le_bytes();
        assert!(table.windows(4).any(|bytes| bytes == last));
    }

    #[test]
    fn the_next_archive_can_follow() {
        let archive = archive();
        assert!(archive.starts_with(b"070701") && archive.len().is_multiple_of(4));
    }
}
