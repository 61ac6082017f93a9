//! What the service says about a failure, and about a system's end.

use std::fmt;

use super::{ExitType, documents};

documents! {
    /// The result document of a failed operation.
    pub struct ResultError {
        /// The failure, an `HRESULT`.
        pub error: i32,
        /// What the service says about it.
        pub error_message: String,
        /// Its causes, outermost first.
        pub error_events: Vec<ErrorEvent>,
    }

    /// A cause of a failure.
    pub struct ErrorEvent {
        /// What happened.
        pub message: String,
        /// The component that says so.
        pub provider: String,
        /// The kind of event in that component.
        pub event_id: u16,
        /// More on where it comes from.
        pub source: String,
    }

    /// The event document of a system's end.
    pub struct SystemExitStatus {
        /// How it ended, an `HRESULT`.
        pub status: i32,
        /// How it stopped.
        pub exit_type: Option<ExitType>,
    }
}

impl fmt::Display for ErrorEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.trim())?;
        if !self.provider.is_empty() {
            write!(f, " ({} event {})", self.provider, self.event_id)?;
        }
        Ok(())
    }
}
