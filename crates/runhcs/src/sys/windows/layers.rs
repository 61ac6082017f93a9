//! The root file system of a Windows container on this host: a volume on its writable disk,
//! through which its read-only layers are seen.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use runhcs_hcs::Kind;
use runhcs_hcs::documents::{LayerFolders, layers};
use runhcs_hcs::service::{Disk, attach_filter, detach_filter};
use serde::{Deserialize, Serialize};

/// The disk in the folder of a writable layer.
const SCRATCH: &str = "sandbox.vhdx";

/// What a container may leave attached on this host; recorded before it is attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostLayers {
    /// Its writable disk.
    disk: Option<PathBuf>,
}

/// The writable disk in a layer's folder.
pub fn scratch_disk(folder: impl AsRef<Path>) -> PathBuf {
    folder.as_ref().join(SCRATCH)
}

/// Says which of the read-only layers isn't there. The service only says that one isn't.
pub fn find(folders: &LayerFolders) -> Result<()> {
    for folder in &folders.read_only {
        std::fs::metadata(folder)
            .with_context(|| format!("windows.layerFolders: find the layer {folder}"))?;
    }
    Ok(())
}

impl HostLayers {
    /// Those of a container with these layer folders.
    pub fn of(folders: &LayerFolders) -> Self {
        Self { disk: Some(scratch_disk(&folders.scratch)) }
    }

    /// Attaches the disk and the layers, and returns the volume. A failure leaves nothing attached,
    /// but what somebody else has attached.
    pub fn attach(&self, folders: &LayerFolders) -> Result<String> {
        find(folders)?;
        let disk = Disk::open(&scratch_disk(&folders.scratch))?;
        let seen = folders.read_only.iter().map(|folder| (folder.as_str(), folder.as_str()));
        let attached = match disk.attach() {
            Err(failure) if failure.kind == Kind::InUse => {
                return Err(failure).context(
                    "windows.layerFolders: the last folder is to be this container's own, but \
                     another container has its disk",
                );
            }
            attached => attached.and_then(|()| disk.volume()).and_then(|volume| {
                attach_filter(&volume, &layers(seen))?;
                Ok(volume)
            }),
        };
        attached.map_err(|failure| {
            // What went wrong first is what counts.
            if let Err(error) = self.release() {
                tracing::warn!("{error:#}");
            }
            failure.into()
        })
    }

    /// Detaches the layers and the disk. Succeeds if nothing is attached.
    pub fn release(&self) -> Result<()> {
        let Some(path) = &self.disk else { return Ok(()) };
        let disk = match Disk::open(path) {
            Ok(disk) => disk,
            Err(failure) if failure.kind == Kind::NotFound => return Ok(()),
            Err(failure) => return Err(failure.into()),
        };
        // A disk that isn't attached has no volume.
        if let Ok(volume) = disk.volume() {
            detach_filter(&volume)?;
        }
        Ok(disk.detach()?)
    }
}
