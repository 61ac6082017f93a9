//! The error every compute service reports, sorted by what a caller can do about it.

use crate::{ContainerId, Status};

/// Result of an operation on a compute system.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on a compute system failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The compute system doesn't exist (any more).
    #[error("container {0} does not exist")]
    NotFound(ContainerId),
    /// The operation is not valid in the system's present status.
    #[error("cannot {operation} container {id}: it is {status}")]
    InvalidStatus {
        /// What was asked for, as a verb: `start`, `kill`, …
        operation: &'static str,
        /// The container asked about.
        id: ContainerId,
        /// The status it was found in.
        status: Status,
    },
    /// The service, the kernel or the machine lacks what the operation needs.
    #[error("{0}")]
    Unsupported(String),
    /// The service didn't answer in time; the operation's outcome is unknown.
    #[error("{operation} timed out after {seconds} s")]
    Timeout {
        /// What was waited for.
        operation: String,
        /// How long, in seconds.
        seconds: u64,
    },
    /// Anything else, with what was attempted and the cause.
    #[error("{context}")]
    Failed {
        /// The operation and its object: `mount proc on /proc`.
        context: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Wraps `source` with what was being attempted.
    pub fn failed(
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { context: context.into(), source: source.into() }
    }
}
