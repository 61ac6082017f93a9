//! Layers on this host: a container's writable disk, and the filter that shows its read-only
//! layers through it.

use std::ffi::OsStr;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::{Path, PathBuf};

use windows_sys::Win32::Foundation::{ERROR_NOT_READY, ERROR_SUCCESS, HANDLE};
use windows_sys::Win32::Storage::Vhd::{
    ATTACH_VIRTUAL_DISK_FLAG_NO_DRIVE_LETTER, ATTACH_VIRTUAL_DISK_FLAG_PERMANENT_LIFETIME,
    ATTACH_VIRTUAL_DISK_PARAMETERS, ATTACH_VIRTUAL_DISK_VERSION_1, AttachVirtualDisk,
    DETACH_VIRTUAL_DISK_FLAG_NONE, DetachVirtualDisk, OPEN_VIRTUAL_DISK_FLAG_NONE,
    OPEN_VIRTUAL_DISK_PARAMETERS, OPEN_VIRTUAL_DISK_VERSION_2, OpenVirtualDisk,
    VIRTUAL_DISK_ACCESS_NONE, VIRTUAL_STORAGE_TYPE, VIRTUAL_STORAGE_TYPE_DEVICE_UNKNOWN,
};
use windows_sys::Win32::System::HostComputeSystem::{
    HcsAttachLayerStorageFilter, HcsDetachLayerStorageFilter, HcsGetLayerVhdMountPath,
    HcsGrantVmAccess,
};

use super::Result;
use super::text::{Returned, Wide};
use crate::schema::{Layer, Version};
use crate::{Failure, Kind};

/// What an `HRESULT` of a Win32 error begins with.
const WIN32: u32 = 0x8007_0000;

/// A virtual disk that is open, which says nothing on whether it is attached.
#[derive(Debug)]
pub struct Disk {
    handle: OwnedHandle,
    path: PathBuf,
}

impl Disk {
    /// Opens a VHD or VHDX file.
    ///
    /// # Errors
    /// [`Kind::NotFound`]
    pub fn open(path: &Path) -> Result<Self> {
        let kind = VIRTUAL_STORAGE_TYPE {
            DeviceId: VIRTUAL_STORAGE_TYPE_DEVICE_UNKNOWN,
            // Unknown, too: by the file's own word.
            ..VIRTUAL_STORAGE_TYPE::default()
        };
        let mut parameters = OPEN_VIRTUAL_DISK_PARAMETERS::default();
        parameters.Version = OPEN_VIRTUAL_DISK_VERSION_2;
        let name = Wide::new(path);
        let mut handle: HANDLE = std::ptr::null_mut();
        // SAFETY: type, path, parameters and the handle's place outlive the call. Version 2 of the
        // parameters goes with no access rights, and its union is all zeros: a writable disk.
        let code = unsafe {
            OpenVirtualDisk(
                &kind,
                name.as_ptr(),
                VIRTUAL_DISK_ACCESS_NONE,
                OPEN_VIRTUAL_DISK_FLAG_NONE,
                &parameters,
                &mut handle,
            )
        };
        let attempt = || format!("open virtual disk {}", path.display());
        check(attempt, code)?;
        // SAFETY: the call has just made the handle, and nobody else has it.
        let handle = unsafe { OwnedHandle::from_raw_handle(handle) };
        Ok(Self { handle, path: path.to_owned() })
    }

    /// Attaches it to this host, until it is detached or the host restarts.
    pub fn attach(&self) -> Result<()> {
        let mut parameters = ATTACH_VIRTUAL_DISK_PARAMETERS::default();
        parameters.Version = ATTACH_VIRTUAL_DISK_VERSION_1;
        let flags =
            ATTACH_VIRTUAL_DISK_FLAG_PERMANENT_LIFETIME | ATTACH_VIRTUAL_DISK_FLAG_NO_DRIVE_LETTER;
        // SAFETY: the disk is open, the parameters outlive the call, and neither a security
        // descriptor nor an event is given.
        let code = unsafe {
            AttachVirtualDisk(
                self.handle.as_raw_handle(),
                std::ptr::null_mut(),
                flags,
                0,
                &parameters,
                std::ptr::null(),
            )
        };
        check(|| format!("attach virtual disk {}", self.path.display()), code)
    }

    /// Detaches it. Succeeds if it isn't attached.
    pub fn detach(&self) -> Result<()> {
        // SAFETY: the disk is open.
        let code = unsafe {
            DetachVirtualDisk(self.handle.as_raw_handle(), DETACH_VIRTUAL_DISK_FLAG_NONE, 0)
        };
        match code {
            ERROR_NOT_READY => Ok(()),
            code => check(|| format!("detach virtual disk {}", self.path.display()), code),
        }
    }

    /// The volume on it, `\\?\Volume{GUID}`, once it is attached.
    pub fn volume(&self) -> Result<String> {
        let mut path = Returned::none();
        // SAFETY: the disk is open, and the path's place outlives the call.
        let code = unsafe { HcsGetLayerVhdMountPath(self.handle.as_raw_handle(), path.out()) };
        if code < 0 {
            let attempt = format!("find the volume of virtual disk {}", self.path.display());
            return Err(Failure::new(attempt, code));
        }
        Ok(path.text())
    }
}

/// Shows read-only layers through a volume.
pub fn attach_filter(volume: &str, layers: &[Layer]) -> Result<()> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct LayerData<'a> {
        schema_version: Version,
        layers: &'a [Layer],
    }
    let path = Wide::new(volume);
    let data = Wide::json(&LayerData { schema_version: Version::V2_1, layers });
    // SAFETY: both texts outlive the call.
    let code = unsafe { HcsAttachLayerStorageFilter(path.as_ptr(), data.as_ptr()) };
    if code < 0 {
        return Err(Failure::new(format!("attach the layers to {volume}"), code));
    }
    Ok(())
}

/// Undoes [`attach_filter`]. Succeeds if there is nothing to undo.
pub fn detach_filter(volume: impl AsRef<OsStr>) -> Result<()> {
    let path = Wide::new(&volume);
    // SAFETY: the text outlives the call.
    let code = unsafe { HcsDetachLayerStorageFilter(path.as_ptr()) };
    let attempt = || format!("detach the layers of {}", volume.as_ref().to_string_lossy());
    match code {
        code if code >= 0 || Kind::of(code) == Kind::NotFound => Ok(()),
        code => Err(Failure::new(attempt(), code)),
    }
}

/// Lets a virtual machine have a file of this host.
pub fn grant_access(vm_id: &str, file: &Path) -> Result<()> {
    let (id, path) = (Wide::new(vm_id), Wide::new(file));
    // SAFETY: both texts outlive the call.
    let code = unsafe { HcsGrantVmAccess(id.as_ptr(), path.as_ptr()) };
    if code < 0 {
        let attempt = format!("grant {vm_id} access to {}", file.display());
        return Err(Failure::new(attempt, code));
    }
    Ok(())
}

fn check(attempt: impl FnOnce() -> String, code: u32) -> Result<()> {
    if code == ERROR_SUCCESS {
        return Ok(());
    }
    let message = io::Error::from_raw_os_error(code as i32).to_string();
    Err(Failure { message, ..Failure::new(attempt(), (WIN32 | code) as i32) })
}
