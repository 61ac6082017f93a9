//! A bundle: the directory with `config.json`, and the configuration read from it.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Process, Root, Spec};
use serde_json::Value;

use crate::document::{Document, read};
use crate::mounts::prepare_mounts;
use crate::validate::{normalize, validate, validate_process};
use crate::vm_hardware::VmHardware;
use crate::{Error, Result, typed};

/// A loaded and validated bundle, all paths absolute.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The bundle's directory, absolute and without symbolic links.
    pub path: PathBuf,
    /// Its configuration; `root.path` and the sources of bind mounts are absolute.
    pub spec: Spec,
    /// Its `vm.hwConfig`, which `spec` has no room for.
    pub hardware: Option<VmHardware>,
    pub(crate) rootfs: PathBuf,
}

impl Bundle {
    /// Reads and validates `config.json` in `path`.
    ///
    /// What the specification lets be written in several ways comes out in one: destinations of
    /// mounts are absolute, and a namespace with an empty path has no path. `process` may be
    /// absent, as the specification allows until the container is started.
    ///
    /// # Errors
    /// The file can't be read, isn't a configuration, breaks one of the specification's rules, or
    /// names a root file system that doesn't exist. The error names the field.
    pub fn load(path: &Path) -> Result<Self> {
        let bundle =
            path.canonicalize().map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let config = bundle.join("config.json");
        let (spec, hardware) = parse_spec(&config, &read(&config)?)?;
        Self::new(bundle, spec, hardware)
    }

    /// The root file system's directory; on Windows it may be empty.
    pub fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    fn new(path: PathBuf, mut spec: Spec, hardware: Option<VmHardware>) -> Result<Self> {
        let rootfs = find_rootfs(&path, spec.root().as_ref())?;
        if let Some(root) = spec.root_mut() {
            root.set_path(rootfs.clone());
        }
        prepare_mounts(&mut spec, &path)?;
        Ok(Self { path, spec, hardware, rootfs })
    }
}

/// Reads and validates a process document, as `exec --process` takes it; `-` is standard input.
///
/// # Errors
/// The file can't be read, isn't a process document, or breaks one of the specification's rules.
pub fn load_process(path: &Path) -> Result<Process> {
    let bytes = read(path)?;
    let mut document = Document::new(path, &bytes)?;
    document.repair_process("");
    let process: Process = document.read()?;
    validate_process(&process, "")?;
    Ok(process)
}

/// The configuration that a value of its shape stands for; it is not validated again.
///
/// # Errors
/// It isn't of that shape. The error names the field.
pub fn configuration_from(value: &Value) -> Result<Spec> {
    Ok(typed::read(value)?)
}

/// The validated configuration of the file at `path`, its paths as they are written.
fn parse_spec(path: &Path, bytes: &[u8]) -> Result<(Spec, Option<VmHardware>)> {
    let mut document = Document::new(path, bytes)?;
    document.repair_configuration();
    let hardware = document.take_vm_hardware()?;
    let mut spec = document.read()?;
    normalize(&mut spec);
    validate(&spec)?;
    Ok((spec, hardware))
}

/// The root file system's directory, without symbolic links.
fn find_rootfs(bundle: &Path, root: Option<&Root>) -> Result<PathBuf> {
    let invalid = |message: String| Error::invalid("root.path", message);
    let path = match root.map(|root| root.path().as_path()) {
        None => {
            return Err(Error::invalid("root", "missing; it names the root file system"));
        }
        Some(path) if path == Path::new("") => {
            return Err(invalid("missing; it names the root file system's directory".into()));
        }
        Some(path) => path,
    };
    if path.is_relative() && leaves(path) {
        return Err(outside(path, bundle));
    }
    let found = bundle.join(path).canonicalize().map_err(|e| {
        let full = bundle.join(path);
        invalid(match e.kind() {
            std::io::ErrorKind::NotFound => format!("{} does not exist", full.display()),
            _ => format!("cannot find {}: {e}", full.display()),
        })
    })?;
    // Through a symbolic link, too, a relative path must not leave the bundle.
    if path.is_relative() && !found.starts_with(bundle) {
        return Err(outside(path, bundle));
    }
    if !found.is_dir() {
        return Err(invalid(format!("{} is not a directory", found.display())));
    }
    Ok(found)
}

fn outside(path: &Path, bundle: &Path) -> Error {
    Error::invalid(
        "root.path",
        format!(
            "{:?} leads out of the bundle {}; a root file system elsewhere takes an absolute path",
            path.display().to_string(),
            bundle.display()
        ),
    )
}

/// Whether a relative path, as it is written, leads above where it starts.
fn leaves(path: &Path) -> bool {
    let mut depth = 0usize;
    for component in path.components() {
        match component {
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "every_field_tests.rs"]
mod every_field_tests;
