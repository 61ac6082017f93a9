//! What runhcs remembers about its containers until the next boot.
//!
//! A [`Store`] holds one [`Entry`] per container; an entry holds named JSON values and a directory
//! for the container's sockets and FIFOs. Claiming an id is atomic, a value is replaced whole or
//! not at all, and a [`Locked`] entry belongs to one process at a time. On Linux the store is a
//! directory on a tmpfs; on Windows, a volatile registry key.

mod error;
mod record;
mod store;

pub use error::{Error, Result};
pub use record::{ProcessHandle, Record, VmPlace};
pub use store::{Entry, Locked, Store};
