//! Requests that change a virtual machine while it runs. Each addition has its counterpart, which
//! the caller keeps to undo it.

use serde::Serialize;
use serde_json::{Value, json};

use super::SCSI_CONTROLLERS;
use super::guest_paths::PLAN9_PORT;
use crate::schema::{
    Attachment, AttachmentType, CombinedLayers, GuestModifySettingRequest, GuestResource,
    ImageFormat, Layer, LinuxMappedDirectory, LinuxMappedVPMemDevice, LinuxMappedVirtualDisk,
    ModifySettingRequest, Plan9Share, RequestType, VirtualPMemDevice, VirtualSmbShare,
    VirtualSmbShareOptions, WindowsMappedVirtualDisk,
};

const PLAN9_SHARES: &str = "VirtualMachine/Devices/Plan9/Shares";
const SMB_SHARES: &str = "VirtualMachine/Devices/VirtualSmb/Shares";

/// An addition and what undoes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Adds the resource.
    pub add: ModifySettingRequest,
    /// Removes it again.
    pub remove: ModifySettingRequest,
}

/// Where a disk is: a controller's number and a logical unit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScsiSlot {
    /// The controller, below [`SCSI_CONTROLLERS`]' number.
    pub controller: u8,
    /// The unit, 0 to 63.
    pub lun: u8,
}

/// Which guest has to mount a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// A Linux one.
    Linux,
    /// A Windows one.
    Windows,
}

/// A layer of a Linux container as persistent memory. `file` is a VHD of fixed size.
pub fn pmem_layer(device: u32, file: &str, mount_path: &str) -> Change {
    let settings = VirtualPMemDevice {
        host_path: file.to_owned(),
        read_only: true,
        image_format: Some(ImageFormat::Vhd1),
    };
    let guest = LinuxMappedVPMemDevice { device_number: device, mount_path: mount_path.to_owned() };
    Change::new(
        &format!("VirtualMachine/Devices/VirtualPMem/Devices/{device}"),
        Some(value(&settings)),
        Some((GuestResource::VPMemDevice, value(&guest))),
    )
}

/// A disk that the guest mounts.
pub fn scsi_disk(
    slot: ScsiSlot,
    file: &str,
    read_only: bool,
    mount_path: &str,
    guest: Guest,
) -> Change {
    let mount_path = mount_path.to_owned();
    let guest = match guest {
        Guest::Linux => value(&LinuxMappedVirtualDisk {
            mount_path,
            lun: slot.lun,
            controller: slot.controller,
            read_only,
        }),
        Guest::Windows => {
            value(&WindowsMappedVirtualDisk { container_path: mount_path, lun: slot.lun })
        }
    };
    let guest = Some((GuestResource::MappedVirtualDisk, guest));
    Change::scsi(slot, AttachmentType::VirtualDisk, file, read_only, guest)
}

/// A folder of the host, or one file in it, for a Linux guest, mounted at a path there.
pub fn plan9_share(
    name: &str,
    folder: &str,
    file: Option<&str>,
    read_only: bool,
    mount_path: &str,
) -> Change {
    let mut flags = Plan9Share::LINUX_METADATA;
    if read_only {
        flags |= Plan9Share::READ_ONLY;
    }
    if file.is_some() {
        flags |= Plan9Share::RESTRICT_FILE_ACCESS;
    }
    let settings = Plan9Share {
        name: name.to_owned(),
        access_name: name.to_owned(),
        path: folder.to_owned(),
        port: PLAN9_PORT,
        flags,
        allowed_files: file.into_iter().map(str::to_owned).collect(),
    };
    let guest = LinuxMappedDirectory {
        mount_path: mount_path.to_owned(),
        port: PLAN9_PORT,
        share_name: name.to_owned(),
        read_only,
    };
    let mut change = Change::new(
        PLAN9_SHARES,
        Some(value(&settings)),
        Some((GuestResource::MappedDirectory, value(&guest))),
    );
    change.remove.settings = Some(json!({"Name": name, "AccessName": name, "Port": PLAN9_PORT}));
    change
}

/// A folder of the host, or one file in it, for a Windows guest, which sees it without mounting.
pub fn smb_share(
    name: &str,
    folder: &str,
    file: Option<&str>,
    options: VirtualSmbShareOptions,
) -> Change {
    let settings = VirtualSmbShare {
        name: name.to_owned(),
        path: folder.to_owned(),
        allowed_files: file.into_iter().map(str::to_owned).collect(),
        options: Some(VirtualSmbShareOptions {
            restrict_file_access: file.is_some(),
            single_file_mapping: file.is_some(),
            ..options
        }),
    };
    let mut change = Change::new(SMB_SHARES, Some(value(&settings)), None);
    change.remove.settings = Some(json!({"Name": name}));
    change
}

/// A named pipe of the host for a Windows guest, by its name without `\\.\pipe\`.
pub fn mapped_pipe(name: &str) -> Change {
    Change::new(&format!("VirtualMachine/Devices/MappedPipes/{name}"), None, None)
}

/// The layers in a guest, put together to a root file system there.
pub fn combined_layers(root: &str, layers: Vec<Layer>, scratch: &str) -> Change {
    let settings = CombinedLayers {
        container_root_path: root.to_owned(),
        layers,
        scratch_path: scratch.to_owned(),
    };
    Change::new("", None, Some((GuestResource::CombinedLayers, value(&settings))))
}

/// A network namespace of the host for the guest. `namespace` is the Host Compute Network's
/// document of it.
pub fn network_namespace(namespace: &Value) -> Change {
    Change::new("", None, Some((GuestResource::NetworkNamespace, namespace.clone())))
}

impl Change {
    /// A disk at a SCSI controller, and what the guest does with it, if anything.
    pub(super) fn scsi(
        slot: ScsiSlot,
        kind: AttachmentType,
        path: &str,
        read_only: bool,
        guest: Option<(GuestResource, Value)>,
    ) -> Self {
        let path = path.to_owned();
        let settings = Attachment { kind: Some(kind), path, read_only, ..Attachment::default() };
        let controller = SCSI_CONTROLLERS[usize::from(slot.controller)];
        let place = format!("VirtualMachine/Devices/Scsi/{controller}/Attachments/{}", slot.lun);
        Self::new(&place, Some(value(&settings)), guest)
    }

    pub(super) fn new(
        path: &str,
        settings: Option<Value>,
        guest: Option<(GuestResource, Value)>,
    ) -> Self {
        let request = |request_type, settings| ModifySettingRequest {
            resource_path: path.to_owned(),
            request_type,
            settings,
            guest_request: guest.clone().map(|(resource_type, settings)| {
                GuestModifySettingRequest { request_type, resource_type, settings: Some(settings) }
            }),
        };
        Self {
            add: request(RequestType::Add, settings),
            remove: request(RequestType::Remove, None),
        }
    }
}

/// A document of this crate as JSON. These have neither maps with keys that aren't texts nor
/// serializers of their own that fail.
pub(super) fn value(document: &impl Serialize) -> Value {
    serde_json::to_value(document).expect("a document of this crate is JSON")
}
