//! What the guest agent has to say besides its answers: lines for the VM's log.

use runhcs_compute::ContainerId;
use serde::{Deserialize, Serialize};

/// The most bytes of a line's text; the agent cuts what is longer, the host checks.
pub const MAX_MESSAGE: usize = 4096;

/// The word on the guest kernel's command line that says from which level on the agent logs, as in
/// `runhcs.log=debug`.
pub const LEVEL_WORD: &str = "runhcs.log";

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLine {
    /// How important it is.
    pub level: LogLevel,
    /// The container it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerId>,
    /// The text, with its fields as `name=value` at its end.
    pub message: String,
}

/// The importance of a line, the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something failed and nobody else may tell.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What an operator wants to see.
    Info,
    /// What a developer wants to see.
    Debug,
}

impl LogLevel {
    /// The level of that name, as on the kernel's command line.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            _ => return None,
        })
    }

    /// Its name; [`Self::from_name`] reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// The start of `text`, of [`MAX_MESSAGE`] bytes at most.
pub fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug] {
            assert_eq!(LogLevel::from_name(level.name()), Some(level));
            assert_eq!(serde_json::to_value(level).unwrap(), level.name());
        }
        assert_eq!(LogLevel::from_name("loud"), None);
    }

    #[test]
    fn characters_are_not_cut_in_two() {
        assert_eq!(cut("short"), "short");
        let long = "ü".repeat(MAX_MESSAGE);
        assert_eq!(cut(&long).len(), MAX_MESSAGE);
        assert_eq!(cut(&format!("x{long}")).len(), MAX_MESSAGE - 1);
    }
}
