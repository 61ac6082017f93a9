//! What can go wrong with the store.

use std::path::PathBuf;

use runhcs_compute::ContainerId;

/// Result of an operation on the store.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container of this id is known.
    #[error("container {0} does not exist")]
    NotFound(ContainerId),
    /// The id is taken.
    #[error("container {0} already exists")]
    Exists(ContainerId),
    /// A value of the entry can't be read: damaged, or of another version of runhcs.
    #[error("state of container {id} is damaged ({path}); `delete --force {id}` clears it")]
    Corrupt {
        /// Whose.
        id: ContainerId,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file system refused.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
