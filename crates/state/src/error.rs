//! What can go wrong with the store.

use std::path::{Path, PathBuf};

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
    /// Something lies in the store's directory that is not an entry.
    #[error("{path} is not an entry of runhcs: {reason}; remove it if nothing else needs it")]
    Foreign {
        /// What lies there.
        path: PathBuf,
        /// Why it isn't an entry.
        reason: String,
    },
    /// The store's directory can't be trusted, or is none.
    #[error("{path} can't hold state: {reason}")]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// Who could tamper with it, and what to use instead.
        reason: String,
    },
    /// A namespace configuration can't be used, or the stored one is damaged.
    #[error("configuration of network namespace {namespace:?}: {reason}")]
    Namespace {
        /// The namespace.
        namespace: String,
        /// What is wrong.
        reason: String,
    },
    /// The file system, or the registry, refused.
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

impl Error {
    /// The file system refused `operation` on `path`.
    pub(crate) fn io(
        operation: &'static str,
        path: &Path,
        source: impl Into<std::io::Error>,
    ) -> Self {
        Self::Io { operation, path: path.to_owned(), source: source.into() }
    }
}
