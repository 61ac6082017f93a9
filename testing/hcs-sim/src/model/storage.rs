//! Layers, disks, and who may read files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Failure;
use super::handles::Connection;
use crate::hresult;
use crate::schema;
use crate::wire::{AccessOperation, LayerOperation};

/// The storage service.
#[derive(Debug, Default)]
pub struct Storage {
    /// Layers whose filter is attached.
    attached: BTreeSet<String>,
    /// Disks that are attached to the host, and by whom: those of a caller go with it.
    disks: BTreeMap<String, Option<Connection>>,
    /// Files and the virtual machines that may read them; an absent one stands for all.
    access: BTreeSet<(String, Option<String>)>,
}

impl Storage {
    /// The layers whose filter is attached.
    pub fn layers(&self) -> Vec<String> {
        self.attached.iter().cloned().collect()
    }

    /// The disks that are attached to the host.
    pub fn disks(&self) -> Vec<String> {
        self.disks.keys().cloned().collect()
    }

    /// Grants and revokes access.
    ///
    /// # Errors
    /// If there is no such file, or no such access to revoke.
    pub fn access(
        &mut self,
        operation: AccessOperation,
        machine: Option<&str>,
        path: &str,
    ) -> Result<(), Failure> {
        let entry = (normal(path), machine.map(str::to_owned));
        match operation {
            AccessOperation::Grant => {
                if !super::is_physical(path) && !Path::new(path).exists() {
                    let message = format!("there is no file {path}");
                    return Err(Failure::new(hresult::FILE_NOT_FOUND, message));
                }
                self.access.insert(entry);
            }
            AccessOperation::Revoke => {
                self.access.remove(&entry);
            }
        }
        Ok(())
    }

    /// Refuses a file that isn't there.
    ///
    /// # Errors
    /// If it isn't there.
    pub fn expect_file(&self, path: &str) -> Result<(), Failure> {
        if Path::new(path).is_file() {
            return Ok(());
        }
        Err(Failure::new(hresult::FILE_NOT_FOUND, format!("there is no file {path}")))
    }

    /// Refuses a directory that isn't there.
    ///
    /// # Errors
    /// If it isn't there.
    pub fn expect_directory(&self, path: &str) -> Result<(), Failure> {
        if Path::new(path).is_dir() {
            return Ok(());
        }
        Err(Failure::new(hresult::PATH_NOT_FOUND, format!("there is no directory {path}")))
    }

    /// Refuses a file that a virtual machine may not read.
    ///
    /// # Errors
    /// If access wasn't granted.
    pub fn expect_access(&self, machine: &str, path: &str) -> Result<(), Failure> {
        let path = normal(path);
        let granted = self.access.contains(&(path.clone(), Some(machine.to_owned())))
            || self.access.contains(&(path.clone(), None));
        if granted {
            return Ok(());
        }
        let message = format!("the virtual machine {machine} was not granted access to {path}");
        Err(Failure::new(hresult::ACCESS_DENIED, message))
    }

    /// Attaches a disk to the host, for as long as a caller lives or until it is detached.
    ///
    /// # Errors
    /// If it is attached already.
    pub fn attach_disk(&mut self, path: &str, owner: Option<Connection>) -> Result<(), Failure> {
        self.expect_file(path)?;
        if self.disks.contains_key(&normal(path)) {
            // ERROR_SHARING_VIOLATION
            let in_use = crate::hresult::Hresult(0x8007_0020);
            return Err(Failure::new(in_use, format!("{path} is attached already")));
        }
        self.disks.insert(normal(path), owner);
        Ok(())
    }

    /// Detaches a disk.
    ///
    /// # Errors
    /// If it isn't attached.
    pub fn detach_disk(&mut self, path: &str) -> Result<(), Failure> {
        match self.disks.remove(&normal(path)) {
            Some(_) => Ok(()),
            None => Err(Failure::new(hresult::NOT_FOUND, format!("{path} is not attached"))),
        }
    }

    /// Detaches the disks of a caller that has gone.
    pub fn disconnect(&mut self, connection: Connection) {
        self.disks.retain(|_, owner| *owner != Some(connection));
    }

    /// Does what a function of a layer does, and answers with a path if it has one.
    ///
    /// # Errors
    /// If a folder is missing, a document isn't one, or the layer is in no state for this.
    pub fn layer(
        &mut self,
        operation: LayerOperation,
        path: &str,
        other: Option<&str>,
        layers: Option<&str>,
        options: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        if let Some(layers) = layers {
            let layers = schema::parse("LayerData", layers)?;
            for layer in layers["Layers"].as_array().into_iter().flatten() {
                let folder = layer["Path"].as_str().unwrap_or_default();
                if !Path::new(folder).is_dir() {
                    let message = format!("there is no layer {folder}");
                    return Err(Failure::new(hresult::INVALID_LAYER, message));
                }
            }
        }
        match operation {
            LayerOperation::AttachFilter => {
                needs_layers(layers)?;
                self.expect_mounted(path)?;
                if !self.attached.insert(normal(path)) {
                    let message = format!("the filter of {path} is attached already");
                    return Err(Failure::new(hresult::ALREADY_EXISTS, message));
                }
            }
            LayerOperation::DetachFilter => {
                if !self.attached.remove(&normal(path)) {
                    let message = format!("the filter of {path} is not attached");
                    return Err(Failure::new(hresult::NOT_FOUND, message));
                }
            }
            LayerOperation::InitializeWritable => {
                needs_layers(layers)?;
                self.expect_mounted(path)?;
            }
            LayerOperation::GetVhdMountPath => {
                if !self.disks.contains_key(&normal(path)) {
                    let message = format!("{path} is not attached");
                    return Err(Failure::new(hresult::NOT_FOUND, message));
                }
                return Ok(Some(volume(path)));
            }
            LayerOperation::FormatWritableVhd => self.expect_file(path)?,
            LayerOperation::SetupBase => {
                if let Some(options) = options {
                    schema::parse("OsLayerOptions", options)?;
                }
                self.expect_directory(path)?;
            }
            LayerOperation::Import | LayerOperation::Export => {
                needs_layers(layers)?;
                if operation == LayerOperation::Import {
                    self.expect_directory(other.unwrap_or_default())?;
                } else {
                    self.expect_directory(path)?;
                }
            }
            LayerOperation::Destroy => {
                self.expect_directory(path)?;
                if self.attached.contains(&normal(path)) {
                    let message = format!("the filter of {path} is attached");
                    return Err(Failure::new(hresult::BUSY, message));
                }
                std::fs::remove_dir_all(path).map_err(|error| {
                    Failure::new(hresult::Hresult::from_system(&error), error.to_string())
                })?;
            }
        }
        Ok(None)
    }

    /// A folder, or the volume of a disk that is attached.
    fn expect_mounted(&self, path: &str) -> Result<(), Failure> {
        let path = normal(path);
        if self.disks.keys().any(|disk| normal(&volume(disk)) == path) {
            return Ok(());
        }
        self.expect_directory(&path)
    }

    /// Whether a container can have its root file system at this path.
    ///
    /// # Errors
    /// If there is no attached layer.
    pub fn expect_attached(&self, path: &str) -> Result<(), Failure> {
        if self.attached.contains(&normal(path)) {
            return Ok(());
        }
        let message = format!("{path} is not a writable layer whose filter is attached");
        Err(Failure::new(hresult::INVALID_LAYER, message))
    }
}

fn needs_layers(layers: Option<&str>) -> Result<(), Failure> {
    match layers {
        Some(_) => Ok(()),
        None => Err(Failure::new(hresult::INVALID_ARGUMENT, "the layers below are missing")),
    }
}

/// The volume that a disk becomes when it is attached: made from its path, so that the same disk
/// is always the same volume.
fn volume(disk: &str) -> String {
    let hash = normal(disk).bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!(r"\\?\Volume{{00000000-0000-4000-{:04x}-{:012x}}}", hash >> 48, hash & 0xffff_ffff_ffff)
}

/// A path that is the same for all ways to write it: Windows ignores case and a slash at the end.
fn normal(path: &str) -> String {
    let plain =
        if path.starts_with(r"\\?\Volume") { path } else { path.trim_start_matches(r"\\?\") };
    plain.trim_end_matches('\\').to_lowercase()
}
