//! Errors that say what was attempted on what.

use runhcs_compute::{Error, Result};

/// Adds the operation and its object to an error.
pub(crate) trait Context<T> {
    /// Wraps the error with what was attempted.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T>
    for std::result::Result<T, E>
{
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::failed(what(), error))
    }
}

/// An error about a field of `config.json`.
pub(crate) fn invalid(field: impl Into<String>, why: impl Into<String>) -> Error {
    Error::failed(field, why.into())
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
