//! Layers on this host: a container's writable disk, and the filter that shows its read-only
//! layers through it.

use std::ffi::OsStr;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windows_sys::Win32::Foundation::{ERROR_NOT_READY, ERROR_SUCCESS, HANDLE};
use windows_sys::Win32::Storage::Vhd::{
    ATTACH_VIRTUAL_DISK_FLAG_NO_DRIVE_LETTER, ATTACH_VIRTUAL_DISK_FLAG_PERMANENT_LIFETIME,
    ATTACH_VIRTUAL_DISK_PARAMETERS, ATTACH_VIRTUAL_DISK_VERSION_1, AttachVirtualDisk,
    CREATE_VIRTUAL_DISK_FLAG_NONE, CREATE_VIRTUAL_DISK_PARAMETERS, CREATE_VIRTUAL_DISK_VERSION_2,
    CreateVirtualDisk, DETACH_VIRTUAL_DISK_FLAG_NONE, DetachVirtualDisk,
    OPEN_VIRTUAL_DISK_FLAG_NONE, OPEN_VIRTUAL_DISK_PARAMETERS, OPEN_VIRTUAL_DISK_VERSION_2,
    OpenVirtualDisk, VIRTUAL_DISK_ACCESS_NONE, VIRTUAL_STORAGE_TYPE,
    VIRTUAL_STORAGE_TYPE_DEVICE_UNKNOWN, VIRTUAL_STORAGE_TYPE_DEVICE_VHDX,
    VIRTUAL_STORAGE_TYPE_VENDOR_MICROSOFT,
};
use windows_sys::Win32::System::HostComputeSystem::{
    HcsAttachLayerStorageFilter, HcsDetachLayerStorageFilter, HcsGetLayerVhdMountPath,
    HcsGrantVmAccess, HcsRevokeVmAccess,
};
use windows_sys::core::{HRESULT, PCWSTR};

use super::Result;
use super::deadline::{WORK, within};
use super::text::{Returned, Wide};
use crate::schema::{Layer, Version};
use crate::{Failure, Kind};

/// What an `HRESULT` of a Win32 error begins with.
const WIN32: u32 = 0x8007_0000;

/// The unit in which a VHDX file grows, in bytes: small, for what is written is scattered.
const BLOCK: u32 = 1 << 20;
/// The size of a virtual disk's sectors, in bytes.
const SECTOR: u32 = 512;

/// A virtual disk that is open, which says nothing on whether it is attached.
#[derive(Debug)]
pub struct Disk {
    handle: Arc<OwnedHandle>,
    path: PathBuf,
}

impl Disk {
    /// Makes a VHDX file of a size in bytes, which grows as it is written to.
    ///
    /// # Errors
    /// [`Kind::AlreadyExists`], and whatever the file system says.
    pub fn create(path: &Path, size: u64) -> Result<()> {
        let attempt = format!("make the virtual disk {}", path.display());
        let path = path.to_owned();
        within(attempt.clone(), WORK, move || {
            let kind = VIRTUAL_STORAGE_TYPE {
                DeviceId: VIRTUAL_STORAGE_TYPE_DEVICE_VHDX,
                VendorId: VIRTUAL_STORAGE_TYPE_VENDOR_MICROSOFT,
            };
            let mut parameters = CREATE_VIRTUAL_DISK_PARAMETERS::default();
            parameters.Version = CREATE_VIRTUAL_DISK_VERSION_2;
            parameters.Anonymous.Version2.MaximumSize = size;
            parameters.Anonymous.Version2.BlockSizeInBytes = BLOCK;
            parameters.Anonymous.Version2.SectorSizeInBytes = SECTOR;
            let name = Wide::new(&path);
            let mut handle: HANDLE = std::ptr::null_mut();
            // SAFETY: type, path, parameters and the handle's place outlive the call. Version 2 of
            // the parameters goes with no access rights; neither a security descriptor nor an
            // event is given.
            let code = unsafe {
                CreateVirtualDisk(
                    &kind,
                    name.as_ptr(),
                    VIRTUAL_DISK_ACCESS_NONE,
                    std::ptr::null_mut(),
                    CREATE_VIRTUAL_DISK_FLAG_NONE,
                    0,
                    &parameters,
                    std::ptr::null(),
                    &mut handle,
                )
            };
            check(&attempt, code)?;
            // SAFETY: the call has just made the handle, and nobody else has it.
            drop(unsafe { OwnedHandle::from_raw_handle(handle) });
            Ok(())
        })
    }

    /// Opens a VHD or VHDX file.
    ///
    /// # Errors
    /// [`Kind::NotFound`]
    pub fn open(path: &Path) -> Result<Self> {
        let attempt = format!("open virtual disk {}", path.display());
        let path = path.to_owned();
        within(attempt.clone(), WORK, move || {
            let kind = VIRTUAL_STORAGE_TYPE {
                DeviceId: VIRTUAL_STORAGE_TYPE_DEVICE_UNKNOWN,
                // Unknown, too: by the file's own word.
                ..VIRTUAL_STORAGE_TYPE::default()
            };
            let mut parameters = OPEN_VIRTUAL_DISK_PARAMETERS::default();
            parameters.Version = OPEN_VIRTUAL_DISK_VERSION_2;
            let name = Wide::new(&path);
            let mut handle: HANDLE = std::ptr::null_mut();
            // SAFETY: type, path, parameters and the handle's place outlive the call. Version 2 of
            // the parameters goes with no access rights, and its union is all zeros: a writable
            // disk.
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
            check(&attempt, code)?;
            // SAFETY: the call has just made the handle, and nobody else has it.
            let handle = Arc::new(unsafe { OwnedHandle::from_raw_handle(handle) });
            Ok(Self { handle, path })
        })
    }

    /// Attaches it to this host, until it is detached or the host restarts.
    pub fn attach(&self) -> Result<()> {
        let attempt = format!("attach virtual disk {}", self.path.display());
        let handle = Arc::clone(&self.handle);
        within(attempt.clone(), WORK, move || {
            let mut parameters = ATTACH_VIRTUAL_DISK_PARAMETERS::default();
            parameters.Version = ATTACH_VIRTUAL_DISK_VERSION_1;
            let flags = ATTACH_VIRTUAL_DISK_FLAG_PERMANENT_LIFETIME
                | ATTACH_VIRTUAL_DISK_FLAG_NO_DRIVE_LETTER;
            // SAFETY: the disk is open, the parameters outlive the call, and neither a security
            // descriptor nor an event is given.
            let code = unsafe {
                AttachVirtualDisk(
                    handle.as_raw_handle(),
                    std::ptr::null_mut(),
                    flags,
                    0,
                    &parameters,
                    std::ptr::null(),
                )
            };
            check(&attempt, code)
        })
    }

    /// Detaches it. Succeeds if it isn't attached.
    pub fn detach(&self) -> Result<()> {
        let attempt = format!("detach virtual disk {}", self.path.display());
        let handle = Arc::clone(&self.handle);
        within(attempt.clone(), WORK, move || {
            // SAFETY: the disk is open.
            let code = unsafe {
                DetachVirtualDisk(handle.as_raw_handle(), DETACH_VIRTUAL_DISK_FLAG_NONE, 0)
            };
            if code == ERROR_NOT_READY { Ok(()) } else { check(&attempt, code) }
        })
    }

    /// The volume on it, `\\?\Volume{GUID}`, once it is attached.
    pub fn volume(&self) -> Result<String> {
        let attempt = format!("find the volume of virtual disk {}", self.path.display());
        let handle = Arc::clone(&self.handle);
        within(attempt.clone(), WORK, move || {
            let mut path = Returned::none();
            // SAFETY: the disk is open, and the path's place outlives the call.
            let code = unsafe { HcsGetLayerVhdMountPath(handle.as_raw_handle(), path.out()) };
            if code < 0 { Err(Failure::new(attempt, code)) } else { Ok(path.text()) }
        })
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
    let attempt = format!("attach the layers to {volume}");
    within(attempt.clone(), WORK, move || {
        // SAFETY: both texts outlive the call.
        let code = unsafe { HcsAttachLayerStorageFilter(path.as_ptr(), data.as_ptr()) };
        if code < 0 { Err(Failure::new(attempt, code)) } else { Ok(()) }
    })
}

/// Undoes [`attach_filter`]. Succeeds if there is nothing to undo.
pub fn detach_filter(volume: impl AsRef<OsStr>) -> Result<()> {
    let path = Wide::new(&volume);
    let attempt = format!("detach the layers of {}", volume.as_ref().to_string_lossy());
    within(attempt.clone(), WORK, move || {
        // SAFETY: the text outlives the call.
        match unsafe { HcsDetachLayerStorageFilter(path.as_ptr()) } {
            code if code >= 0 || Kind::of(code) == Kind::NotFound => Ok(()),
            code => Err(Failure::new(attempt, code)),
        }
    })
}

/// Lets a virtual machine have a file of this host.
pub fn grant_access(vm_id: &str, file: &Path) -> Result<()> {
    access(format!("grant {vm_id} access to {}", file.display()), vm_id, file, HcsGrantVmAccess)
}

/// Undoes [`grant_access`].
pub fn revoke_access(vm_id: &str, file: &Path) -> Result<()> {
    let attempt = format!("revoke the access of {vm_id} to {}", file.display());
    access(attempt, vm_id, file, HcsRevokeVmAccess)
}

fn access(
    attempt: String,
    vm_id: &str,
    file: &Path,
    function: unsafe extern "system" fn(PCWSTR, PCWSTR) -> HRESULT,
) -> Result<()> {
    let (id, path) = (Wide::new(vm_id), Wide::new(file));
    within(attempt.clone(), WORK, move || {
        // SAFETY: both texts outlive the call.
        let code = unsafe { function(id.as_ptr(), path.as_ptr()) };
        if code < 0 { Err(Failure::new(attempt, code)) } else { Ok(()) }
    })
}

fn check(attempt: &str, code: u32) -> Result<()> {
    if code == ERROR_SUCCESS {
        return Ok(());
    }
    let message = io::Error::from_raw_os_error(code as i32).to_string();
    Err(Failure { message, ..Failure::new(attempt, (WIN32 | code) as i32) })
}
