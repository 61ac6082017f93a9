//! A network namespace as data: reads what it holds, and makes it hold something. The VM shim reads
//! the pod's namespace on the host with it, the guest agent makes the guest's the same.

mod apply;
mod collect;
mod messages;

pub use apply::{apply, unused};
pub use collect::{Found, FoundInterface, collect};
