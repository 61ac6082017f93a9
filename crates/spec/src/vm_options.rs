//! The options of a utility VM: defaults, then the configuration file, then annotations.

use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::Result;

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// KVM where a probe shows that it works, else TCG with a warning.
    #[default]
    Auto,
    /// The processor's own virtualisation; an error where it can't be used.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// QEMU's machine type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Machine {
    /// Minimal, boots fastest.
    #[default]
    Microvm,
    /// A PC with PCI Express.
    Q35,
}

/// The `[vm]` table of the configuration file: everything optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct VmDefaults {
    /// The guest kernel, an uncompressed ELF image with a PVH entry.
    pub kernel: Option<PathBuf>,
    /// The guest's initramfs.
    pub initramfs: Option<PathBuf>,
    /// Appended to the kernel command line.
    pub kernel_args: Option<String>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// Number of virtual CPUs.
    pub vcpus: Option<u32>,
    /// What runs the guest's instructions.
    pub accelerator: Option<Accelerator>,
    /// QEMU's machine type.
    pub machine: Option<Machine>,
    /// The QEMU binary; looked up in `PATH` if it has no slash.
    pub qemu: Option<PathBuf>,
    /// How long a VM may take to come up, in seconds.
    pub boot_timeout_seconds: Option<u64>,
}

/// The options of one utility VM, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmOptions {
    /// The guest kernel, an uncompressed ELF image with a PVH entry.
    pub kernel: PathBuf,
    /// The guest's initramfs.
    pub initramfs: PathBuf,
    /// Appended to the kernel command line.
    pub kernel_args: String,
    /// Memory in MiB, at least 64.
    pub memory_mib: u64,
    /// Number of virtual CPUs, at least 1.
    pub vcpus: u32,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// QEMU's machine type.
    pub machine: Machine,
    /// The QEMU binary; looked up in `PATH` if it has no slash.
    pub qemu: PathBuf,
    /// How long the VM may take to come up, in seconds, at least 1.
    pub boot_timeout_seconds: u64,
}

impl VmOptions {
    /// Translates the configuration and its annotations.
    ///
    /// # Errors
    /// A value that doesn't parse or is out of range, naming the annotation.
    pub fn from_spec(_spec: &Spec, _defaults: &VmDefaults) -> Result<Self> {
        todo!()
    }
}
