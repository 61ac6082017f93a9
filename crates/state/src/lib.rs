//! What runhcs remembers about its containers until the next boot.
//!
//! A [`Store`] holds one [`Entry`] per container; an entry holds named JSON values and a directory
//! for the container's sockets and FIFOs. Claiming an id is atomic, a value is replaced whole or
//! not at all, and a [`Locked`] entry belongs to one process at a time. On Linux the store is a
//! directory on a tmpfs; on Windows, a volatile registry key.
//!
//! Beside the containers the store holds the persisted configuration of network namespaces
//! ([`Namespaces`]), and the crate knows how to tell a process from a later one with the same pid
//! ([`ProcessHandle`]).

mod error;
mod name;
mod namespaces;
mod process;
mod record;
mod store;
mod sys;

pub use error::{Error, Result};
pub use namespaces::{NamespaceConfig, Namespaces};
pub use process::ProcessHandle;
pub use record::{RECORD_VERSION, Record, VmPlace};
pub use store::{Entry, Listed, Locked, Store};
#[cfg(windows)]
pub use sys::AdministratorsOnly;
