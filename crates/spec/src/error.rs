//! What can be wrong with a configuration, by file and field.

use std::path::PathBuf;

use crate::typed::ContentError;

/// Result of reading a configuration.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not JSON of the expected shape.
    #[error("{path}: {field}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The field's path in it, such as `process.capabilities.bounding[2]`; `.` for the whole.
        field: String,
        /// What is wrong with it, with line and column.
        message: String,
    },
    /// A field's value can't be used.
    #[error("{field}: {message}")]
    Invalid {
        /// The field's path in the configuration, or the annotation's name.
        field: String,
        /// What is wrong with it and what would be right.
        message: String,
    },
}

impl Error {
    /// A field's value that can't be used.
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }
}

impl From<ContentError> for Error {
    fn from(ContentError { field, message }: ContentError) -> Self {
        Self::Invalid { field, message }
    }
}
