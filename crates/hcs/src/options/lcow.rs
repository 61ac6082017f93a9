//! What a Linux guest boots from, and how.

use oci_spec::runtime::Spec;

use super::names::*;
use super::{Annotations, HostFacts};
use crate::{Invalid, Result};

/// From this build on the service boots a Linux kernel without firmware.
const KERNEL_DIRECT_BUILD: u32 = 18286;
/// The most persistent memory devices a machine can have.
const MAX_PMEM_DEVICES: u32 = 128;
const DEFAULT_PMEM_DEVICES: u32 = 64;
/// 4 GiB.
const DEFAULT_PMEM_SIZE: u64 = 4 << 30;
/// What the service passes to the kernel on its command line at most.
const MAX_KERNEL_OPTIONS: usize = 1024;

/// The folder with the guest's kernel and root file system, and which of its files are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFolder {
    /// The folder, absolute.
    pub path: String,
    /// Whether it has `vmlinux`, an uncompressed kernel.
    pub has_vmlinux: bool,
    /// Whether it has `rootfs.vhd`.
    pub has_rootfs_vhd: bool,
}

/// The guest's own root file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootFs {
    /// `initrd.img`, unpacked into memory.
    Initrd,
    /// `rootfs.vhd`, a disk.
    Vhd,
}

impl RootFs {
    /// Its file in the boot folder.
    pub fn file(self) -> &'static str {
        match self {
            Self::Initrd => "initrd.img",
            Self::Vhd => "rootfs.vhd",
        }
    }
}

/// The options of a Linux guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LcowOptions {
    /// The folder with its boot files.
    pub boot_folder: String,
    /// The kernel's file in the folder.
    pub kernel: &'static str,
    /// Whether the service loads the kernel itself, without firmware.
    pub kernel_direct: bool,
    /// Its root file system.
    pub root_fs: RootFs,
    /// Appended to the kernel command line.
    pub kernel_options: String,
    /// How many persistent memory devices it can have; layers are on SCSI disks if 0.
    pub pmem_count: u32,
    /// The largest such device, in bytes.
    pub pmem_size: u64,
    /// Whether it has a PCI bus.
    pub pci: bool,
    /// Whether its clock goes on its own.
    pub no_time_sync: bool,
    /// Whether pages that the guest says are not in use are discarded.
    pub cold_discard_hint: bool,
    /// Where processes that crash leave their dumps.
    pub process_dumps: Option<String>,
}

impl LcowOptions {
    /// Translates the configuration. `look` says what is in a boot folder; `default_folder` is
    /// where the boot files are if nothing is said.
    ///
    /// # Errors
    /// A value out of its range, a wish that the boot folder or the host can't fulfil.
    pub fn from_spec(
        spec: &Spec,
        host: HostFacts,
        default_folder: &str,
        look: impl FnOnce(&str) -> BootFolder,
    ) -> Result<Self> {
        let annotations = Annotations::of(spec);
        let folder = look(annotations.text(BOOT_FILES).unwrap_or(default_folder));
        let can_boot_directly = host.build >= KERNEL_DIRECT_BUILD;
        let kernel_direct = match annotations.flag(KERNEL_DIRECT_BOOT)? {
            Some(true) if !can_boot_directly => {
                let message =
                    format!("needs build {KERNEL_DIRECT_BUILD} or later; this is {}", host.build);
                return Err(Invalid::new(KERNEL_DIRECT_BOOT, message));
            }
            Some(wish) => wish,
            None => can_boot_directly,
        };
        let root_fs = match annotations.text(ROOT_FS_TYPE) {
            Some("initrd") => RootFs::Initrd,
            Some("vhd") => RootFs::Vhd,
            Some(other) => {
                let message = format!("{other:?} is neither `initrd` nor `vhd`");
                return Err(Invalid::new(ROOT_FS_TYPE, message));
            }
            None if folder.has_rootfs_vhd => RootFs::Vhd,
            None => RootFs::Initrd,
        };
        let kernel = if kernel_direct && folder.has_vmlinux { "vmlinux" } else { "kernel" };
        Ok(Self {
            boot_folder: folder.path,
            kernel,
            kernel_direct,
            root_fs,
            kernel_options: kernel_options(annotations.text(KERNEL_OPTIONS).unwrap_or(""))?,
            pmem_count: annotations
                .number(PMEM_COUNT, 0..=MAX_PMEM_DEVICES)?
                .unwrap_or(DEFAULT_PMEM_DEVICES),
            pmem_size: match annotations.number(PMEM_SIZE, 1..=u64::MAX)? {
                Some(size) if size % 4096 != 0 => {
                    let message = format!("{size} is not a multiple of 4096, the size of a page");
                    return Err(Invalid::new(PMEM_SIZE, message));
                }
                Some(size) => size,
                None => DEFAULT_PMEM_SIZE,
            },
            pci: annotations.flag(PCI_ENABLED)?.unwrap_or(false),
            no_time_sync: annotations.flag(NO_TIME_SYNC)?.unwrap_or(false),
            cold_discard_hint: annotations.flag(COLD_DISCARD_HINT)?.unwrap_or(false),
            process_dumps: process_dumps(annotations.text(PROCESS_DUMPS))?,
        })
    }
}

/// Words for the kernel. What comes behind `--` is init's, and init is the guest's.
fn kernel_options(text: &str) -> Result<String> {
    if let Some(bad) = text.chars().find(|c| !matches!(c, ' '..='~')) {
        let message = format!("it holds {bad:?}; only printable ASCII is accepted");
        return Err(Invalid::new(KERNEL_OPTIONS, message));
    }
    if text.split(' ').any(|word| word == "--") {
        let message = "it holds `--`; arguments for init are not accepted";
        return Err(Invalid::new(KERNEL_OPTIONS, message));
    }
    if text.len() > MAX_KERNEL_OPTIONS {
        let message =
            format!("{} characters; at most {MAX_KERNEL_OPTIONS} are accepted", text.len());
        return Err(Invalid::new(KERNEL_OPTIONS, message));
    }
    Ok(text.trim_matches(' ').to_owned())
}

/// A path in the guest. It becomes a word of the kernel command line.
fn process_dumps(path: Option<&str>) -> Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-%".contains(c);
    if !path.starts_with('/') || !path.chars().all(plain) {
        let message = format!(
            "{path:?} is not a path in the guest made of letters, digits and the characters / . _ - %"
        );
        return Err(Invalid::new(PROCESS_DUMPS, message));
    }
    Ok(Some(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NEW: HostFacts = HostFacts { processors: 4, build: 20348 };
    const OLD: HostFacts = HostFacts { processors: 4, build: 17763 };

    fn read(host: HostFacts, annotations: serde_json::Value) -> Result<LcowOptions> {
        let json = json!({"ociVersion": "1.0.0", "annotations": annotations});
        LcowOptions::from_spec(&serde_json::from_value(json).unwrap(), host, r"C:\lcow", |path| {
            BootFolder { path: path.into(), has_vmlinux: true, has_rootfs_vhd: path == r"C:\vhd" }
        })
    }

    #[test]
    fn the_boot_folder_and_the_build_decide_unless_told() {
        let options = read(NEW, json!({})).unwrap();
        assert_eq!((options.kernel, options.root_fs), ("vmlinux", RootFs::Initrd));
        assert!(options.kernel_direct);
        let options = read(OLD, json!({BOOT_FILES: r"C:\vhd"})).unwrap();
        assert_eq!((options.kernel, options.root_fs), ("kernel", RootFs::Vhd));
        assert!(!options.kernel_direct);
        let told = json!({BOOT_FILES: r"C:\vhd", ROOT_FS_TYPE: "initrd", KERNEL_DIRECT_BOOT: "0"});
        let options = read(NEW, told).unwrap();
        assert_eq!((options.kernel, options.root_fs), ("kernel", RootFs::Initrd));
    }

    #[test]
    fn nonsense_is_named() {
        for (host, name, value) in [
            (OLD, KERNEL_DIRECT_BOOT, "true"),
            (NEW, ROOT_FS_TYPE, "ext4"),
            (NEW, PMEM_COUNT, "129"),
            (NEW, PMEM_SIZE, "4097"),
            (NEW, KERNEL_OPTIONS, "a -- b"),
            (NEW, KERNEL_OPTIONS, "a\nb"),
            (NEW, PROCESS_DUMPS, "/a b"),
            (NEW, PROCESS_DUMPS, r"C:\a"),
        ] {
            assert_eq!(read(host, json!({name: value})).unwrap_err().field, name, "{value:?}");
        }
    }
}
