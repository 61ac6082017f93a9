//! Linux: process isolation by our own engine, VM isolation by QEMU.

pub mod cli;
pub mod commands;
mod config;
mod create;
mod criu_args;
mod disks;
mod ext4;
pub(crate) mod foreground;
pub(crate) mod guest_spec;
pub(crate) mod hooks;
pub(crate) mod inherited_fds;
pub(crate) mod notify_socket;
pub(crate) mod own_program;
pub(crate) mod pidfd_socket;
pub(crate) mod pod_network;
pub(crate) mod privilege;
pub(crate) mod process;
pub(crate) mod progress;
pub(crate) mod service;
pub(crate) mod shim;
pub(crate) mod terminal;
mod update_args;
pub(crate) mod vm_group;
pub(crate) mod vm_template_args;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use runhcs_spec::Bundle;
use runhcs_state::Store;

pub use config::Config;
pub use create::CreationService;
pub use service::Service;

use super::IsolationWish;
use crate::cli::CreateArgs;
use crate::globals::Globals;

/// What has to be done first of all.
pub fn prepare() -> Result<()> {
    own_program::protect()
}

/// The store under `--root`.
pub fn open_store(root: Option<&Path>) -> Result<Store> {
    let root = root.map(Path::to_owned).map_or_else(privilege::default_root, Ok)?;
    Ok(Store::open(&root)?)
}

/// Fails if `--root` names a directory that isn't there: what only looks makes none, and a mistyped
/// directory is no empty one.
pub fn check_store_exists(root: Option<&Path>) -> Result<()> {
    match root.filter(|root| !root.exists()) {
        None => Ok(()),
        Some(root) => bail!("--root: there is no directory {}", root.display()),
    }
}

/// A file for log messages.
pub fn open_log(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Loads a bundle, validates its configuration, and applies the annotations that are the model's
/// for single containers.
pub fn load_bundle(path: &Path) -> Result<Bundle> {
    let mut bundle = Bundle::load(path)?;
    for annotation in runhcs_spec::apply_container_annotations(&mut bundle.spec)? {
        tracing::warn!(annotation, "it has no effect on this system");
    }
    Ok(bundle)
}

/// What is known of the isolation that is wished for.
pub fn isolation_wish(globals: &Globals, args: &CreateArgs, _spec: &Spec) -> Result<IsolationWish> {
    Ok(IsolationWish {
        flag: args.isolation,
        program_name: std::env::args().next().unwrap_or_default(),
        configured: globals.config.isolation,
    })
}

/// Fails if the caller may not have VMs.
pub fn check_may_have_vm() -> Result<()> {
    if !privilege::is_privileged() {
        bail!("VM isolation needs root: ordinary users can have process isolation only");
    }
    Ok(())
}

/// The network namespace that the configuration asks for: its path.
pub fn network_namespace(_globals: &Globals, spec: &Spec) -> Result<Option<PathBuf>> {
    Ok(guest_spec::network_namespace(spec))
}

/// A UUID of version 4, from the kernel (random(4), `/proc/sys/kernel/random/uuid`).
pub fn new_unique_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    Ok(text.trim().to_owned())
}
