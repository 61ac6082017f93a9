//! The options of `vm-template`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use runhcs_uvm::template::TemplateId;

use crate::cli::ListFormat;

/// Saved VMs, from which new ones are resumed.
#[derive(Args, Debug)]
pub struct VmTemplateArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: VmTemplateVerb,
}

/// What can be done with templates.
#[derive(Debug, Subcommand)]
pub enum VmTemplateVerb {
    /// Boot a VM once and save it; print the template's id.
    Create(VmTemplateCreateArgs),
    /// List templates.
    List(VmTemplateListArgs),
    /// Remove templates; VMs that were resumed from them go on.
    Remove(VmTemplateRemoveArgs),
}

/// `vm-template create`
#[derive(Args, Debug)]
pub struct VmTemplateCreateArgs {
    /// For VMs such as the one of this bundle; by default, such as the configuration describes.
    #[arg(long, short, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Memory in MiB, unless an annotation of the bundle says.
    #[arg(long, value_name = "MIB")]
    pub memory_mib: Option<u64>,
    /// Number of virtual CPUs, unless an annotation of the bundle says.
    #[arg(long, value_name = "COUNT")]
    pub vcpus: Option<u32>,
    /// File for the VM's log.
    #[arg(long, value_name = "FILE")]
    pub vm_log: Option<PathBuf>,
}

/// `vm-template list`
#[derive(Args, Debug)]
pub struct VmTemplateListArgs {
    /// Format.
    #[arg(long, short, value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
    /// Print ids only.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `vm-template remove`
#[derive(Args, Debug)]
pub struct VmTemplateRemoveArgs {
    /// The templates' ids.
    #[arg(required_unless_present_any = ["all", "outdated"])]
    pub ids: Vec<TemplateId>,
    /// Remove all.
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    /// Remove those from which no VM is resumed any more: their kernel, initramfs, QEMU or
    /// processor is another one now, or they are damaged.
    #[arg(long, conflicts_with = "ids")]
    pub outdated: bool,
}
