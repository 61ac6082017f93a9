//! The virtual machine with a Windows guest, booted from a folder of the host over the virtual
//! machine bus.

use crate::options::{VmOptions, WcowOptions};
use crate::schema::{
    Attachment, AttachmentType, BootDevice, Chipset, ComputeSystem, Devices, GuestCrashReporting,
    RegistryChanges, RegistryHive, RegistryValue, Topology, Uefi, UefiBootEntry, VirtualMachine,
    VirtualSmb, VirtualSmbShare, VirtualSmbShareOptions, WindowsCrashReporting,
};

use super::SCSI_CONTROLLERS;
use super::vm::{compute_system, debug_options, devices, guest_connection, topology};

/// How much of the host's files can be mapped into the guest, in MiB.
const DIRECT_MAP_MB: i64 = 1024;
/// The boot manager in the guest's files.
const BOOT_MANAGER: &str = r"\EFI\Microsoft\Boot\bootmgfw.efi";
/// The share with the guest's files; the boot manager asks for it by this name.
const OS_SHARE: &str = "os";

/// What a Windows guest boots from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WcowBootFiles {
    /// The folder of the host with its files, `UtilityVM\Files` of the lowest layer.
    pub os_files: String,
    /// The disk for what it writes.
    pub scratch: String,
}

/// The document of the machine.
pub fn wcow_vm(
    vm_id: &str,
    owner: &str,
    options: &VmOptions,
    guest: WcowOptions,
    boot: &WcowBootFiles,
) -> ComputeSystem {
    compute_system(
        owner,
        VirtualMachine {
            chipset: Some(Chipset {
                uefi: Some(Uefi {
                    boot_this: Some(UefiBootEntry {
                        device_type: Some(BootDevice::VmbFs),
                        device_path: BOOT_MANAGER.to_owned(),
                        ..UefiBootEntry::default()
                    }),
                    ..Uefi::default()
                }),
                ..Chipset::default()
            }),
            compute_topology: Some(windows_topology(options)),
            devices: Some(windows_devices(vm_id, options, guest, boot)),
            registry_changes: registry(options, guest),
            storage_qos: options.limits.storage(),
            debug_options: debug_options(options, vm_id),
            guest_connection: guest_connection(false),
            resource_partition_id: options.resource_partition.clone().unwrap_or_default(),
            ..VirtualMachine::default()
        },
    )
}

fn windows_topology(options: &VmOptions) -> Topology {
    let mut topology = topology(options);
    if let Some(memory) = &mut topology.memory {
        memory.enable_hot_hint = options.allow_overcommit;
    }
    topology
}

fn windows_devices(
    vm_id: &str,
    options: &VmOptions,
    guest: WcowOptions,
    boot: &WcowBootFiles,
) -> Devices {
    let mut devices = devices(options, 1);
    if let Some(controller) = devices.scsi.get_mut(SCSI_CONTROLLERS[0]) {
        let disk = Attachment {
            kind: Some(AttachmentType::VirtualDisk),
            path: boot.scratch.clone(),
            ..Attachment::default()
        };
        controller.attachments.insert("0".to_owned(), disk);
    }
    devices.virtual_smb = Some(VirtualSmb {
        shares: vec![VirtualSmbShare {
            name: OS_SHARE.to_owned(),
            path: boot.os_files.clone(),
            allowed_files: Vec::new(),
            options: Some(VirtualSmbShareOptions {
                take_backup_privilege: true,
                ..read_only_share(options, guest)
            }),
        }],
        direct_file_mapping_in_mb: DIRECT_MAP_MB,
    });
    devices.guest_crash_reporting = options.dump_directory.as_ref().map(|folder| {
        let folder = folder.trim_end_matches('\\');
        GuestCrashReporting {
            windows_crash_settings: Some(WindowsCrashReporting {
                dump_file_name: format!(r"{folder}\{vm_id}-windows-crash"),
                dump_type: "Full".to_owned(),
            }),
        }
    });
    devices
}

/// A share of files that nobody changes.
pub fn read_only_share(options: &VmOptions, guest: WcowOptions) -> VirtualSmbShareOptions {
    VirtualSmbShareOptions {
        read_only: true,
        share_read: true,
        cache_io: true,
        pseudo_oplocks: true,
        no_directmap: options.fully_physically_backed || guest.no_direct_map,
        ..VirtualSmbShareOptions::default()
    }
}

fn registry(options: &VmOptions, guest: WcowOptions) -> Option<RegistryChanges> {
    let mut add_values = Vec::new();
    if options.process_dumps.is_some() {
        // The error reporting service has to run, and must not send dumps away.
        add_values.push(RegistryValue::dword(
            RegistryHive::System,
            r"ControlSet001\Services\WerSvc",
            "Start",
            2,
        ));
        add_values.push(RegistryValue::dword(
            RegistryHive::Software,
            r"Microsoft\Windows\Windows Error Reporting",
            "Disabled",
            1,
        ));
    }
    if !guest.no_compartment_namespace {
        add_values.push(RegistryValue::dword(
            RegistryHive::System,
            r"CurrentControlSet\Services\gns",
            "EnableCompartmentNamespace",
            1,
        ));
    }
    (!add_values.is_empty()).then(|| RegistryChanges { add_values, delete_keys: Vec::new() })
}
