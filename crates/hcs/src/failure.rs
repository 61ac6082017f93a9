//! Failures of the service, sorted by what a caller can do about them: by their code, never by
//! their text.

use std::fmt;

use crate::schema::{ErrorEvent, ResultError};

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no such system, process, namespace or file.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The system or process has ended already.
    AlreadyStopped,
    /// It isn't possible in the present state.
    InvalidState,
    /// It goes on; nothing is known of its outcome yet.
    Pending,
    /// It wasn't finished in time; nothing is known of its outcome.
    TimedOut,
    /// Somebody else has it in use.
    InUse,
    /// The caller may not.
    AccessDenied,
    /// The service doesn't understand the document.
    InvalidDocument,
    /// The host lacks what is needed.
    NotSupported,
    /// The service, or the connection to the guest, is gone.
    Disconnected,
    /// The guest ended by itself, or was ended, before it was done.
    Terminated,
    /// Anything else.
    Other,
}

impl Kind {
    /// Of an `HRESULT` (Microsoft Learn, "HCS error codes"; winerror.h).
    pub fn of(code: i32) -> Self {
        match code as u32 {
            0x8037_010e | 0x8007_0490 | 0x8007_0002 | 0x8007_0003 | 0x803b_0002 => Self::NotFound,
            0x8037_010f | 0x8007_00b7 | 0x8007_0050 | 0x803b_0010 => Self::AlreadyExists,
            0x8037_0110 | 0x8037_011f => Self::AlreadyStopped,
            0x8037_0105 | 0x8007_139f => Self::InvalidState,
            0x8037_0103 | 0x8037_0117 => Self::Pending,
            0x8037_0109 | 0x8037_0118 | 0x8007_05b4 => Self::TimedOut,
            0x8007_0020 | 0x8007_00aa => Self::InUse,
            0x8037_011b | 0x8007_0005 => Self::AccessDenied,
            0x8037_010d | 0x803b_001b | 0x8007_0057 => Self::InvalidDocument,
            0x8037_0102 | 0x8037_0113 | 0x8037_0120 | 0x8000_4001 => Self::NotSupported,
            0x8037_0108 | 0x8037_010a | 0x8037_0114 | 0x8037_011c | 0x8037_011e => {
                Self::Disconnected
            }
            0x8037_0100 | 0x8037_0106 | 0x8037_0107 => Self::Terminated,
            _ => Self::Other,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "there is no such object",
            Self::AlreadyExists => "the name is taken",
            Self::AlreadyStopped => "it has ended already",
            Self::InvalidState => "it is not possible in its present state",
            Self::Pending => "it has not been finished yet",
            Self::TimedOut => "it was not finished in time",
            Self::InUse => "it is in use",
            Self::AccessDenied => "access is denied; run as an administrator",
            Self::InvalidDocument => "the service does not understand the document",
            Self::NotSupported => "this host does not support it",
            Self::Disconnected => "the connection to the service or to the guest is lost",
            Self::Terminated => "it ended unexpectedly",
            Self::Other => "the service failed",
        }
    }
}

/// A call of the service that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What was attempted, as a verb with its object: `start compute system box`.
    pub attempt: String,
    /// The `HRESULT`.
    pub code: i32,
    /// What it means.
    pub kind: Kind,
    /// What the service says about it; may be empty.
    pub message: String,
    /// Its causes, outermost first, as the service reports them.
    pub events: Vec<ErrorEvent>,
}

impl Failure {
    /// A failure of which only the code is known.
    pub fn new(attempt: impl Into<String>, code: i32) -> Self {
        Self::with_document(attempt, code, "")
    }

    /// A failure with the service's result document, which is believed as far as it is one.
    pub fn with_document(attempt: impl Into<String>, code: i32, document: &str) -> Self {
        let said: ResultError = serde_json::from_str(document).unwrap_or_default();
        Self {
            attempt: attempt.into(),
            code,
            kind: Kind::of(code),
            message: said.error_message.trim().to_owned(),
            events: said.error_events,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempt, code, kind, message, events } = self;
        write!(f, "{attempt}: {} (0x{:08X})", kind.words(), *code as u32)?;
        if !message.is_empty() {
            write!(f, ": {message}")?;
        }
        // The message may be the first event's.
        for event in events.iter().filter(|event| event.message.trim() != message) {
            write!(f, "; {event}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted() {
        for (code, kind) in [
            (0x8037_010e_u32, Kind::NotFound),
            (0x8037_010f, Kind::AlreadyExists),
            (0x8037_0110, Kind::AlreadyStopped),
            (0x8037_0105, Kind::InvalidState),
            (0x8037_0118, Kind::TimedOut),
            (0x8037_010d, Kind::InvalidDocument),
            (0x8007_0020, Kind::InUse),
            (0x8000_ffff, Kind::Other),
        ] {
            assert_eq!(Kind::of(code as i32), kind, "{code:x}");
        }
    }

    #[test]
    fn the_services_own_words_are_in_the_message() {
        let document = r#"{"Error":-2143878899,"ErrorMessage":"Invalid JSON ",
            "ErrorEvents":[{"Message":"Unknown field","Provider":"{p}","EventId":7}]}"#;
        let failure = Failure::with_document("create compute system a", -2143878899, document);
        assert_eq!(
            failure.to_string(),
            "create compute system a: the service does not understand the document (0x8037010D): \
             Invalid JSON; Unknown field ({p} event 7)"
        );
        let same = r#"{"ErrorMessage":"why","ErrorEvents":[{"Message":"why"}]}"#;
        let failure = Failure::with_document("x", -1, same);
        assert_eq!(failure.to_string(), "x: the service failed (0xFFFFFFFF): why");
        let failure = Failure::with_document("x", -1, "no document");
        assert_eq!(failure.to_string(), "x: the service failed (0xFFFFFFFF)");
    }
}
