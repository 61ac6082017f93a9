//! How a virtual machine boots.

use serde::{Deserialize, Serialize};

use super::documents;

documents! {
    /// What boots a virtual machine: firmware, or a kernel that the service loads by itself.
    pub struct Chipset {
        /// UEFI firmware.
        pub uefi: Option<Uefi>,
        /// A Linux kernel without firmware; from build 18286 on.
        pub linux_kernel_direct: Option<LinuxKernelDirect>,
        /// Whether the clock shows UTC.
        pub use_utc: bool,
    }

    /// UEFI firmware.
    pub struct Uefi {
        /// `Apply` to boot only what the template's keys have signed, `Skip` for anything.
        pub apply_secure_boot_template: String,
        /// The template, a GUID.
        pub secure_boot_template_id: String,
        /// What to boot.
        pub boot_this: Option<UefiBootEntry>,
    }

    /// A boot entry.
    pub struct UefiBootEntry {
        /// What kind of device it is on.
        pub device_type: Option<BootDevice>,
        /// The file on the device.
        pub device_path: String,
        /// The folder of the host that is the device, for [`BootDevice::VmbFs`].
        pub vmb_fs_root_path: String,
        /// What the booted program gets as its arguments.
        pub optional_data: String,
    }

    /// A Linux kernel that the service loads by itself.
    pub struct LinuxKernelDirect {
        /// The kernel, on the host.
        pub kernel_file_path: String,
        /// Its initial RAM disk, on the host.
        pub init_rd_path: String,
        /// Its command line.
        pub kernel_cmd_line: String,
    }
}

/// The device of a boot entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootDevice {
    /// A SCSI disk.
    ScsiDrive,
    /// A folder of the host that the firmware reads over the virtual machine bus.
    VmbFs,
    /// A network.
    Network,
    /// A file in the firmware's own volume.
    File,
}
