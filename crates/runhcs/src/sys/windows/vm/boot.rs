//! What a utility VM boots from, and its document.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use oci_spec::runtime::Spec;
use runhcs_hcs::documents::{
    GuestPorts, LayerFolders, SCSI_CONTROLLERS, ScsiSlot, WcowBootFiles, lcow_vm, wcow_vm,
};
use runhcs_hcs::options::{BootFolder, HostFacts, LcowOptions, RootFs, VmOptions, WcowOptions};
use runhcs_hcs::schema::ComputeSystem;
use runhcs_hcs::service::{grant_access, host_facts};

use super::slots::Slots;
use crate::sys::layers::{self, scratch_disk};
use crate::sys::service::Guest;

/// The folder with a Windows guest's files, in a layer.
const UTILITY_VM: &str = "UtilityVM";
/// The guest's files, in that folder.
const OS_FILES: &str = "Files";
/// What the guest's own writable disk begins as, in that folder.
const TEMPLATE: &str = "SystemTemplate.vhdx";
/// The folder for that disk, in a container's writable layer.
const OWN_SCRATCH: &str = "vm";

/// A VM that is to be made.
pub struct Boot {
    pub document: ComputeSystem,
    pub options: VmOptions,
    pub guest: Guest,
    /// What is particular to a Windows guest; the defaults for a Linux one.
    pub windows: WcowOptions,
    pub slots: Arc<Slots>,
    /// Goes with the VM.
    pub own_disk: Option<OwnDisk>,
}

/// The writable disk of a Windows guest itself, deleted when this is dropped.
#[derive(Debug)]
pub struct OwnDisk(PathBuf);

impl Drop for OwnDisk {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!("{error:#}");
        }
    }
}

/// Deletes the writable disk that a Windows guest of this configuration's VM has, if its shim could
/// not.
pub fn remove_own_disk(spec: &Spec) -> Result<()> {
    if spec.linux().is_some() {
        return Ok(());
    }
    let folders = LayerFolders::of(spec)?;
    remove(&scratch_disk(&Path::new(&folders.scratch).join(OWN_SCRATCH)))
}

fn remove(disk: &Path) -> Result<()> {
    match std::fs::remove_file(disk) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("delete the VM's own disk {}", disk.display()))
        }
        _ => Ok(()),
    }
}

impl Boot {
    /// The VM for a host's configuration.
    pub fn new(
        vm_id: &str,
        owner: &str,
        spec: &Spec,
        boot_files: &Path,
        console: Option<&str>,
    ) -> Result<Self> {
        let host = host_facts();
        let options = VmOptions::from_spec(spec, host, console)?;
        if spec.linux().is_none() {
            return Self::windows(vm_id, owner, spec, options);
        }
        let guest = linux_guest(spec, host, boot_files)?;
        // As the document has them.
        let controllers = if guest.pmem_count == 0 { SCSI_CONTROLLERS.len() as u8 } else { 1 };
        let slots = Slots::new(controllers, guest.pmem_count, |scsi, pmem| {
            if guest.root_fs == RootFs::Vhd && pmem.pop_first().is_none() {
                scsi.pop_first();
            }
        });
        // Nobody listens on the guest's ports.
        let document = lcow_vm(vm_id, owner, &options, &guest, GuestPorts::default());
        let windows = WcowOptions::default();
        Ok(Self { document, options, guest: Guest::Linux, windows, slots, own_disk: None })
    }

    fn windows(vm_id: &str, owner: &str, spec: &Spec, options: VmOptions) -> Result<Self> {
        let windows = WcowOptions::from_spec(spec)?;
        let folders = LayerFolders::of(spec)?;
        layers::find(&folders)?;
        let files = utility_vm(spec, &folders)?;
        let folder = Path::new(&folders.scratch).join(OWN_SCRATCH);
        let disk = own_disk(vm_id, &files.join(TEMPLATE), &folder)?;
        let boot = WcowBootFiles {
            os_files: files.join(OS_FILES).to_string_lossy().into_owned(),
            scratch: disk.0.to_string_lossy().into_owned(),
        };
        let document = wcow_vm(vm_id, owner, &options, windows, &boot);
        let slots = Slots::new(1, 0, |scsi, _| {
            scsi.remove(&ScsiSlot { controller: 0, lun: 0 });
        });
        let own_disk = Some(disk);
        Ok(Self { document, options, guest: Guest::Windows, windows, slots, own_disk })
    }
}

/// What a Linux guest boots from, which has to be there.
pub fn linux_guest(spec: &Spec, host: HostFacts, boot_files: &Path) -> Result<LcowOptions> {
    let folder = boot_files.to_str().context("the boot files' folder is not Unicode")?;
    let guest = LcowOptions::from_spec(spec, host, folder, |path| BootFolder {
        path: path.to_owned(),
        has_vmlinux: Path::new(path).join("vmlinux").exists(),
        has_rootfs_vhd: Path::new(path).join(RootFs::Vhd.file()).exists(),
    })?;
    for file in [guest.kernel, guest.root_fs.file()] {
        let path = Path::new(&guest.boot_folder).join(file);
        std::fs::metadata(&path).with_context(|| {
            format!(
                "there is no boot file of Linux guests at {}; set `boot-files` in the \
                 configuration or the annotation \
                 io.microsoft.virtualmachine.bootfilesrootpath",
                path.display()
            )
        })?;
    }
    Ok(guest)
}

/// The folder with a Windows guest's files: the configuration's, or that of the topmost layer that
/// has one.
fn utility_vm(spec: &Spec, folders: &LayerFolders) -> Result<PathBuf> {
    let hyperv = spec.windows().as_ref().and_then(|windows| windows.hyperv().as_ref());
    if let Some(path) = hyperv.and_then(|hyperv| hyperv.utility_vm_path().as_ref()) {
        return Ok(PathBuf::from(path));
    }
    let candidates = folders.read_only.iter().map(|layer| Path::new(layer).join(UTILITY_VM));
    candidates.into_iter().find(|path| path.is_dir()).with_context(|| {
        format!("windows.layerFolders: no layer has a folder {UTILITY_VM} to boot a VM from")
    })
}

/// Makes the guest's own writable disk, anew for every VM.
fn own_disk(vm_id: &str, template: &Path, folder: &Path) -> Result<OwnDisk> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("make the folder {}", folder.display()))?;
    let disk = scratch_disk(folder);
    std::fs::copy(template, &disk)
        .with_context(|| format!("copy {} to {}", template.display(), disk.display()))?;
    let disk = OwnDisk(disk);
    grant_access(vm_id, &disk.0)?;
    Ok(disk)
}
