//! What is recorded about one container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use runhcs_compute::ContainerId;
use serde::{Deserialize, Serialize};

/// The version of [`Record`] this program writes and reads.
pub const RECORD_VERSION: u32 = 1;

/// A VM-isolated container's place among the VMs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmPlace {
    /// The container that owns the VM; itself for a host.
    pub host_id: ContainerId,
    /// The owner's unique id when this container was created, so that a later VM under the same
    /// name isn't taken for it.
    pub host_unique_id: String,
}

/// What is recorded about a container, written before the resources it describes exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// Its id.
    pub id: ContainerId,
    /// Random, unique to this incarnation of the id (a UUID, version 4).
    pub unique_id: String,
    /// `--owner`.
    pub owner: String,
    /// The specification version of its configuration.
    pub oci_version: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root file system's directory.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339 in UTC.
    pub created: String,
    /// Its configuration's annotations.
    pub annotations: BTreeMap<String, String>,
    /// The sandbox it belongs to; its own id for a sandbox.
    pub sandbox_id: Option<ContainerId>,
    /// `None` for process isolation.
    pub vm: Option<VmPlace>,
    /// The network namespace its configuration asks for.
    pub netns: Option<PathBuf>,
    /// Whether its process has a terminal.
    pub terminal: bool,
}

impl Record {
    /// Whether it stands for a pod.
    pub fn is_sandbox(&self) -> bool {
        self.sandbox_id.as_ref() == Some(&self.id)
    }

    /// Whether it owns a utility VM.
    pub fn is_vm_host(&self) -> bool {
        self.vm.as_ref().is_some_and(|vm| vm.host_id == self.id)
    }
}

/// Reads only the version, so that a record of another version is refused for that and not for
/// its unknown fields.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Why the bytes of a record aren't one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRecord {
    /// It isn't JSON of the right shape.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Another version of runhcs wrote it.
    #[error("it has version {0}, this runhcs reads version {RECORD_VERSION}")]
    Version(u32),
    /// It lies in another container's entry.
    #[error("it is the record of container {0}")]
    Misplaced(ContainerId),
}

impl Record {
    /// Reads a record of the version this program knows.
    pub(crate) fn from_json(json: &[u8]) -> std::result::Result<Self, BadRecord> {
        match serde_json::from_slice::<Versioned>(json)?.version {
            RECORD_VERSION => Ok(serde_json::from_slice(json)?),
            other => Err(BadRecord::Version(other)),
        }
    }
}
