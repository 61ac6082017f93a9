//! Windows: containers and utility VMs of the Host Compute Service.
//!
//! Both shims are this program, started again by a hidden verb: `shim` stands for a container's
//! process and `vm-shim` owns a utility VM.

pub mod cli;
pub mod commands;
mod config;
pub(crate) mod console;
pub(crate) mod container_shim;
pub(crate) mod create;
pub(crate) mod foreground;
pub(crate) mod layers;
pub(crate) mod mounts;
pub(crate) mod pipe;
pub(crate) mod process;
pub(crate) mod service;
mod stdio;
pub(crate) mod verdict;
pub(crate) mod vm;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::runtime::Spec;
use runhcs_compute::ContainerId;
use runhcs_spec::{Bundle, Isolation, requested_isolation, windows_isolation};
use runhcs_state::Store;

pub use config::Config;
pub use create::CreationService;
pub use service::Service;

use super::IsolationWish;
use crate::cli::CreateArgs;
use crate::globals::Globals;

/// The root if `--root` isn't given.
const DEFAULT_ROOT: &str = "default";

/// What has to be done first of all: nothing.
pub fn prepare() -> Result<()> {
    Ok(())
}

/// The store of the name that `--root` gives.
pub fn open_store(root: Option<&Path>) -> Result<Store> {
    Ok(Store::open(root.unwrap_or(Path::new(DEFAULT_ROOT)))?)
}

/// Any name will do: the registry's keys go when Windows ends, so an absent one is empty.
pub fn check_store_exists(_root: Option<&Path>) -> Result<()> {
    Ok(())
}

/// A file or named pipe for log messages.
pub fn open_log(path: &Path) -> std::io::Result<File> {
    if pipe::is_pipe(path) {
        // The right to append to a file is that to make an instance of a pipe.
        return OpenOptions::new().write(true).open(path);
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Loads a bundle and validates its configuration.
pub fn load_bundle(path: &Path) -> Result<Bundle> {
    Ok(runhcs_spec::windows::load_bundle(path)?)
}

/// The configuration alone decides. What runhcs's own annotation says must agree with it.
pub fn isolation_wish(
    _globals: &Globals,
    _args: &CreateArgs,
    spec: &Spec,
) -> Result<IsolationWish> {
    let by_configuration = windows_isolation(spec);
    if let Some(annotated) = requested_isolation(spec, None)?
        && annotated != by_configuration
    {
        anyhow::bail!(
            "io.runhcs.isolation: on Windows a container is isolated by a VM if it has \
             `windows.hyperv` or is a Linux container, and only then"
        );
    }
    Ok(IsolationWish {
        flag: (by_configuration == Isolation::Vm).then_some(Isolation::Vm),
        program_name: String::new(),
        configured: None,
    })
}

/// Whoever may write the state may have VMs.
pub fn check_may_have_vm() -> Result<()> {
    Ok(())
}

/// The compute network namespace that the configuration asks for, a GUID: its own, or that of the
/// container whose network it shares.
pub fn network_namespace(globals: &Globals, spec: &Spec) -> Result<Option<PathBuf>> {
    let network = spec.windows().as_ref().and_then(|windows| windows.network().as_ref());
    let Some(network) = network else { return Ok(None) };
    let shared = network.network_shared_container_name().as_ref();
    if let Some(name) = shared.filter(|name| !name.is_empty()) {
        let id: ContainerId = name.parse().context("windows.network.networkSharedContainerName")?;
        return match globals.store.entry(&id) {
            Ok(entry) => Ok(entry.record()?.netns),
            // It may be another program's container.
            Err(runhcs_state::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
    let namespace = network.network_namespace().clone().filter(|id| !id.is_empty());
    namespace
        .map(|id| {
            let guid = uuid::Uuid::parse_str(&id).with_context(|| {
                format!("windows.network.networkNamespace: {id:?} is not a GUID")
            })?;
            Ok(PathBuf::from(guid.to_string()))
        })
        .transpose()
}

impl Globals {
    /// The options that make a shim use the same state and configuration, and log as it is to.
    fn shim_arguments(&self, log: Option<&PathBuf>) -> Result<Vec<String>> {
        let mut arguments = Vec::new();
        for (option, path) in [("--root", &self.args.root), ("--config", &self.args.config)] {
            if let Some(path) = path {
                let path = path.to_str().with_context(|| format!("{option} is not Unicode"))?;
                arguments.extend([option.to_owned(), path.to_owned()]);
            }
        }
        for argument in self.log_arguments(log) {
            let argument = argument.into_string();
            arguments.push(argument.ok().context("the log's path is not Unicode")?);
        }
        Ok(arguments)
    }
}

/// A UUID of version 4.
pub fn new_unique_id() -> Result<String> {
    Ok(uuid::Uuid::new_v4().to_string())
}
