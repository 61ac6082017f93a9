//! The virtual machine with a Linux guest.

use std::collections::BTreeMap;

use crate::options::{LcowOptions, RootFs, VmOptions};
use crate::schema::{
    Attachment, AttachmentType, BootDevice, Chipset, ComputeSystem, Devices, ImageFormat,
    LinuxKernelDirect, Plan9, Topology, Uefi, UefiBootEntry, VirtualMachine, VirtualPMemController,
    VirtualPMemDevice,
};

use super::vm::{compute_system, debug_options, devices, guest_connection, topology};
use super::{GuestPorts, SCSI_CONTROLLERS, kernel_command_line};

/// The document of the machine.
pub fn lcow_vm(
    vm_id: &str,
    owner: &str,
    options: &VmOptions,
    guest: &LcowOptions,
    ports: GuestPorts,
) -> ComputeSystem {
    let has_console = options.console_pipe.is_some();
    let command_line = kernel_command_line(guest, options.processors, has_console, ports);
    compute_system(
        owner,
        VirtualMachine {
            chipset: Some(chipset(guest, command_line)),
            compute_topology: Some(linux_topology(options, guest)),
            devices: Some(linux_devices(options, guest)),
            storage_qos: options.limits.storage(),
            debug_options: debug_options(options, vm_id),
            guest_connection: guest_connection(true),
            resource_partition_id: options.resource_partition.clone().unwrap_or_default(),
            ..VirtualMachine::default()
        },
    )
}

fn in_boot_folder(guest: &LcowOptions, file: &str) -> String {
    format!(r"{}\{file}", guest.boot_folder.trim_end_matches('\\'))
}

fn chipset(guest: &LcowOptions, command_line: String) -> Chipset {
    if !guest.kernel_direct {
        return Chipset {
            uefi: Some(Uefi {
                boot_this: Some(UefiBootEntry {
                    device_type: Some(BootDevice::VmbFs),
                    device_path: format!(r"\{}", guest.kernel),
                    vmb_fs_root_path: guest.boot_folder.clone(),
                    optional_data: command_line,
                }),
                ..Uefi::default()
            }),
            ..Chipset::default()
        };
    }
    Chipset {
        linux_kernel_direct: Some(LinuxKernelDirect {
            kernel_file_path: in_boot_folder(guest, guest.kernel),
            init_rd_path: match guest.root_fs {
                RootFs::Initrd => in_boot_folder(guest, guest.root_fs.file()),
                RootFs::Vhd => String::new(),
            },
            kernel_cmd_line: command_line,
        }),
        ..Chipset::default()
    }
}

fn linux_topology(options: &VmOptions, guest: &LcowOptions) -> Topology {
    let mut topology = topology(options);
    if let Some(memory) = &mut topology.memory {
        memory.enable_cold_discard_hint = guest.cold_discard_hint;
    }
    topology
}

fn linux_devices(options: &VmOptions, guest: &LcowOptions) -> Devices {
    // Without persistent memory all layers are SCSI disks.
    let controllers = if guest.pmem_count == 0 { SCSI_CONTROLLERS.len() } else { 1 };
    let mut devices = devices(options, controllers);
    devices.plan9 = Some(Plan9::default());
    let root_disk =
        (guest.root_fs == RootFs::Vhd).then(|| in_boot_folder(guest, RootFs::Vhd.file()));
    if guest.pmem_count > 0 {
        let root = root_disk.map(|host_path| {
            let image_format = Some(ImageFormat::Vhd1);
            ("0".to_owned(), VirtualPMemDevice { host_path, read_only: true, image_format })
        });
        devices.virtual_pmem = Some(VirtualPMemController {
            devices: BTreeMap::from_iter(root),
            maximum_count: guest.pmem_count,
            maximum_size_bytes: guest.pmem_size,
        });
    } else if let (Some(path), Some(controller)) =
        (root_disk, devices.scsi.get_mut(SCSI_CONTROLLERS[0]))
    {
        let kind = Some(AttachmentType::VirtualDisk);
        let disk = Attachment { kind, path, read_only: true, ..Attachment::default() };
        controller.attachments.insert("0".to_owned(), disk);
    }
    devices
}
