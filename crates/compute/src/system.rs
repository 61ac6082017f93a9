//! A compute system, as the command sees it whatever runs it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Result, Scope, Signal};

/// What a container is doing. `creating`, `created`, `running` and `stopped` are the OCI runtime
/// specification's; `paused` is what runc adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its entry exists, its resources are still being made.
    Creating,
    /// Ready; its process has not been started.
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// What a wait for exhausted memory came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OomNotice {
    /// How often a container's memory was exhausted so far, counted from any point on.
    pub total: u64,
    /// Whether the container has ended, so that the count is final.
    pub ended: bool,
}

/// A container that exists in some compute service: on this host, in a utility VM, or in the
/// Windows Host Compute Service.
pub trait ComputeSystem {
    /// What the container is doing now.
    fn status(&self) -> Result<Status>;

    /// Releases the created container's process.
    ///
    /// # Errors
    /// [`crate::Error::InvalidStatus`] unless the container is `created`; otherwise what kept its
    /// program from being executed.
    fn start(&self) -> Result<()>;

    /// Sends a signal to the container's init process, or to every process in the container.
    ///
    /// # Errors
    /// [`crate::Error::InvalidStatus`] if nothing is there to receive it.
    fn signal(&self, signal: Signal, scope: Scope) -> Result<()>;

    /// Freezes every process of the container.
    fn pause(&self) -> Result<()>;

    /// Thaws a paused container.
    fn resume(&self) -> Result<()>;

    /// The ids of the container's processes, as its compute service numbers them.
    fn processes(&self) -> Result<Vec<u32>>;

    /// Frees every resource the service holds for the container, killing what still runs.
    /// Succeeds if there is nothing left to free.
    fn delete(&self) -> Result<()>;
}
