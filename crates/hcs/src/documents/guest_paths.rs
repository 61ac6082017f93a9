//! Where things are in a guest. The guests' compute services and their images expect these places.

/// The port of the guest's 9p client.
pub const PLAN9_PORT: u32 = 564;

/// A Linux container's directory in its guest: its configuration, its root file system, its scratch.
pub fn linux_container(id: &str) -> String {
    format!("/run/gcs/c/{id}")
}

/// A Linux container's root file system in its guest.
pub fn linux_rootfs(id: &str) -> String {
    format!("/run/gcs/c/{id}/rootfs")
}

/// Where a Linux guest mounts the layer on a persistent memory device.
pub fn linux_pmem_layer(device: u32) -> String {
    format!("/run/layers/p{device}")
}

/// Where a Linux guest mounts a SCSI disk, by a number that is never used again.
pub fn linux_scsi_mount(number: u64) -> String {
    format!("/run/mounts/scsi/m{number}")
}

/// Where a Linux guest mounts a shared folder of the host for a container.
pub fn linux_share(id: &str, number: u64) -> String {
    format!("/run/gcs/c/{id}/sandbox/m{number}")
}

/// What the path of an SMB share in a Windows guest begins with.
const VSMB: &str = r"\\?\VMSMB\VSMB-{dcc079ae-60ba-4d07-847c-3493609c0870}";

/// An SMB share's path in a Windows guest.
pub fn windows_share(name: &str) -> String {
    format!(r"{VSMB}\{name}")
}

/// The path in a Windows guest of a named pipe of the host, by its name without `\\.\pipe\`.
pub fn windows_pipe(name: &str) -> String {
    format!(r"{VSMB}\IPC$\{name}")
}

/// Where a Windows guest mounts a SCSI disk, by a number that is never used again.
pub fn windows_scsi_mount(number: u64) -> String {
    format!(r"C:\mounts\scsi\m{number}")
}
