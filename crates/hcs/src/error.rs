//! What can be wrong with a configuration that is to become a document.

/// Result of making a document.
pub type Result<T> = std::result::Result<T, Invalid>;

/// A field or annotation that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Invalid {
    /// The field's path in `config.json`, or the annotation's name.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub message: String,
}

impl Invalid {
    /// Says what is wrong with a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}
