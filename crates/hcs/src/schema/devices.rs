//! The devices of a virtual machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::documents;

documents! {
    /// A virtual machine's devices, by their kind.
    pub struct Devices {
        /// Serial ports, by number.
        pub com_ports: BTreeMap<String, ComPort>,
        /// SCSI controllers, by their GUID.
        pub scsi: BTreeMap<String, Scsi>,
        /// The persistent memory controller.
        #[serde(rename = "VirtualPMem")]
        pub virtual_pmem: Option<VirtualPMemController>,
        /// Network adapters, by their GUID.
        pub network_adapters: BTreeMap<String, NetworkAdapter>,
        /// Hyper-V sockets.
        pub hv_socket: Option<HvSocket2>,
        /// What to do if the guest crashes.
        pub guest_crash_reporting: Option<GuestCrashReporting>,
        /// SMB shares of the host.
        pub virtual_smb: Option<VirtualSmb>,
        /// 9p shares of the host.
        pub plan9: Option<Plan9>,
    }

    /// A serial port.
    pub struct ComPort {
        /// The named pipe of the host that it is connected to.
        pub named_pipe: String,
    }

    /// A SCSI controller.
    pub struct Scsi {
        /// What is attached, by logical unit number.
        pub attachments: BTreeMap<String, Attachment>,
    }

    /// A disk at a SCSI controller.
    pub struct Attachment {
        /// What it is.
        #[serde(rename = "Type")]
        pub kind: Option<AttachmentType>,
        /// The file or device of the host.
        pub path: String,
        /// Whether the guest's requests to flush are ignored.
        pub ignore_flushes: bool,
        /// Whether the guest can't write to it.
        pub read_only: bool,
    }

    /// The persistent memory controller. Its devices are disks in the guest that need no copies
    /// of their pages.
    pub struct VirtualPMemController {
        /// The devices, by number.
        pub devices: BTreeMap<String, VirtualPMemDevice>,
        /// How many devices there can be, at most 128.
        pub maximum_count: u32,
        /// The size of the largest device, in bytes.
        pub maximum_size_bytes: u64,
    }

    /// A persistent memory device.
    pub struct VirtualPMemDevice {
        /// The file of the host.
        pub host_path: String,
        /// Whether the guest can't write to it.
        pub read_only: bool,
        /// The file's format.
        pub image_format: Option<ImageFormat>,
    }

    /// A network adapter.
    pub struct NetworkAdapter {
        /// The endpoint of the Host Compute Network that it belongs to, a GUID.
        pub endpoint_id: String,
        /// Its hardware address, with hyphens.
        pub mac_address: String,
    }

    /// Hyper-V sockets of a virtual machine.
    pub struct HvSocket2 {
        /// Who may use them.
        pub hv_socket_config: Option<HvSocketSystemConfig>,
    }

    /// Who may use Hyper-V sockets. Security descriptors are in SDDL.
    pub struct HvSocketSystemConfig {
        /// Who may listen, unless a service says otherwise.
        pub default_bind_security_descriptor: String,
        /// Who may connect, unless a service says otherwise.
        pub default_connect_security_descriptor: String,
        /// Services, by their GUID.
        pub service_table: BTreeMap<String, HvSocketServiceConfig>,
    }

    /// Who may use one service.
    pub struct HvSocketServiceConfig {
        /// Who may listen.
        pub bind_security_descriptor: String,
        /// Who may connect.
        pub connect_security_descriptor: String,
        /// Whether one may listen for every machine at once.
        pub allow_wildcard_binds: bool,
        /// Whether nobody may use it.
        pub disabled: bool,
    }

    /// What to do if the guest crashes.
    pub struct GuestCrashReporting {
        /// For Windows guests.
        pub windows_crash_settings: Option<WindowsCrashReporting>,
    }

    /// Where the dump of a Windows guest goes.
    pub struct WindowsCrashReporting {
        /// The file of the host.
        pub dump_file_name: String,
        /// `Full` or `Mini`.
        pub dump_type: String,
    }

    /// SMB shares of the host in a Windows guest.
    pub struct VirtualSmb {
        /// The shares.
        pub shares: Vec<VirtualSmbShare>,
        /// How much of them can be mapped into the guest without copies, in MiB.
        #[serde(rename = "DirectFileMappingInMB")]
        pub direct_file_mapping_in_mb: i64,
    }

    /// An SMB share.
    pub struct VirtualSmbShare {
        /// Its name.
        pub name: String,
        /// The folder of the host.
        pub path: String,
        /// The only files in it that the guest can see; all if empty.
        pub allowed_files: Vec<String>,
        /// How it behaves.
        pub options: Option<VirtualSmbShareOptions>,
    }

    /// How an SMB share behaves.
    pub struct VirtualSmbShareOptions {
        /// Whether the guest can't write.
        pub read_only: bool,
        /// Whether others may read a file that the guest has open.
        pub share_read: bool,
        /// Whether the host caches.
        pub cache_io: bool,
        /// Whether the guest gets no locks that let it cache.
        pub no_oplocks: bool,
        /// Whether it is read with the backup privilege, past file permissions.
        pub take_backup_privilege: bool,
        /// Whether files aren't mapped into the guest.
        pub no_directmap: bool,
        /// Whether only [`VirtualSmbShare::allowed_files`] can be opened.
        pub restrict_file_access: bool,
        /// Whether the guest may cache in the belief that files don't change.
        pub pseudo_oplocks: bool,
        /// Whether the only file is a share of its own.
        pub single_file_mapping: bool,
    }

    /// 9p shares of the host in a Linux guest. There, even if it has no share yet.
    pub struct Plan9 {
        /// The shares.
        pub shares: Vec<Plan9Share>,
    }

    /// A 9p share.
    pub struct Plan9Share {
        /// Its name.
        pub name: String,
        /// The name by which the guest asks for it.
        pub access_name: String,
        /// The folder of the host.
        pub path: String,
        /// The Hyper-V socket port it is served on.
        pub port: u32,
        /// How it behaves: a sum of [`Plan9Share`]'s constants.
        pub flags: u32,
        /// The only files in it that the guest can see; all if empty.
        pub allowed_files: Vec<String>,
    }
}

impl Plan9Share {
    /// The guest can't write.
    pub const READ_ONLY: u32 = 0x1;
    /// Linux owners and modes are kept in extended attributes.
    pub const LINUX_METADATA: u32 = 0x4;
    /// Names differ by case.
    pub const CASE_SENSITIVE: u32 = 0x8;
    /// Only the allowed files can be opened.
    pub const RESTRICT_FILE_ACCESS: u32 = 0x80;
}

/// What is attached to a SCSI controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachmentType {
    /// A VHD or VHDX file.
    VirtualDisk,
    /// An ISO file.
    Iso,
    /// A disk of the host.
    PassThru,
}

/// The format of a persistent memory device's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageFormat {
    /// VHDX.
    Vhdx,
    /// VHD with a fixed size.
    Vhd1,
}
