//! What differs by operating system. Each module offers the same items:
//!
//! - `cli`: `Verb` with the verbs that only this system has, and the options of verbs that differ;
//! - `commands`: what `delete` frees, and `exec`, `features`, `ps`, `resize_tty`, `run`, `spec`, `start`;
//! - `CreationService`: the steps of the creation flow;
//! - `Service`: what runs an existing container;
//! - `Config`: the configuration file's content, and where that is;
//! - `prepare`, `open_store`, `open_log`, `load_bundle`, `isolation_wish`, `check_may_have_vm`,
//!   `network_namespace`, `new_unique_id`.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::*;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::*;

use runhcs_spec::Isolation;

/// What is known of the isolation that is wished for, besides the configuration.
pub struct IsolationWish {
    /// What was said for this very container.
    pub flag: Option<Isolation>,
    /// The name that this program was called by.
    pub program_name: String,
    /// The configuration file's default.
    pub configured: Option<Isolation>,
}
