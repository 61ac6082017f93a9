//! What the command needs from any compute service, on any operating system: container ids,
//! signals, statuses, exit statuses, and the [`ComputeSystem`] trait.
//!
//! This crate performs no I/O and knows no operating system.

mod error;
mod exit;
mod id;
mod signal;
pub mod stats;
mod system;

pub use error::{Error, Result};
pub use exit::ExitStatus;
pub use id::{ContainerId, InvalidId};
pub use signal::{InvalidSignal, Scope, Signal};
pub use stats::Stats;
pub use system::{ComputeSystem, OomNotice, Status};
