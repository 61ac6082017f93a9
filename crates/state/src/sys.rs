//! What an operating system keeps the store in. Each module offers the same items:
//!
//! - `Root`: the place of all entries: `open`, `path`, `claim`, `entry`, `names`, `shared`;
//! - `Dir`: one entry: `value_path`, `read`, `write`, `erase`, `lock`, `unlock`,
//!   `is_current`, `remove`;
//! - `process_times`: whether a process has ended and when it started;
//! - `NAMES_DIFFER_BY_CASE`: whether two entries' names can differ by case only.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::{Dir, NAMES_DIFFER_BY_CASE, Root, process_times};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::AdministratorsOnly;
#[cfg(windows)]
pub(crate) use windows::{Dir, NAMES_DIFFER_BY_CASE, Root, process_times};

/// The outcome of reading a value.
#[derive(Debug)]
pub(crate) enum Read {
    /// Its bytes.
    Value(Vec<u8>),
    /// It was never written.
    Absent,
    /// There is something in its place that can't be a value, and why.
    Unusable(String),
    /// The entry was removed.
    Gone,
}

/// A process's beginning and end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessTimes {
    /// When it started, in the system's own unit.
    pub(crate) start_time: u64,
    /// Whether it has ended and only waits to be reaped.
    pub(crate) ended: bool,
}
