//! Why systemd couldn't be asked, or refused.

use std::path::PathBuf;

/// Result of talking to systemd.
pub type Result<T> = std::result::Result<T, Error>;

/// Why systemd couldn't be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket of a manager is there.
    #[error("no systemd answers: none of {} can be connected to", list(.0))]
    NoManager(Vec<PathBuf>),
    /// Reading or writing failed.
    #[error("talk to systemd over {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The other side said something that isn't D-Bus, or that this client doesn't know.
    #[error("systemd's answer can't be understood: {0}")]
    Protocol(String),
    /// The call was answered with an error.
    #[error("{method}: {message} ({name})")]
    Refused {
        /// The method that was called.
        method: &'static str,
        /// The error's name, such as `org.freedesktop.systemd1.UnitExists`.
        name: String,
        /// What it says.
        message: String,
    },
    /// The manager took the job on, and it failed.
    #[error("systemd's job for {unit} ended as {result:?}; `systemctl status {unit}` may say more")]
    Job {
        /// The unit.
        unit: String,
        /// `failed`, `timeout`, `canceled`, `dependency` or `skipped`.
        result: String,
    },
    /// A name can't be a unit's.
    #[error("{0}")]
    Name(String),
}

impl Error {
    /// Whether the manager refused with the error of this name, without its prefix.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { name, .. }
            if name.strip_prefix("org.freedesktop.systemd1.") == Some(wanted))
    }
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}
