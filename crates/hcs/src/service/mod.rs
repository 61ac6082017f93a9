//! Calls of the Host Compute Service, its storage and its network, over Microsoft's documented C
//! interface (`computecore.dll`, `computestorage.dll`, `computenetwork.dll`, `virtdisk.dll`).
//!
//! Every handle closes itself. Every call has a deadline; what has not been finished by then is
//! [`crate::Kind::TimedOut`], and its outcome is unknown.

mod deadline;
mod events;
mod host;
mod network;
mod operation;
mod process;
mod storage;
mod system;
mod text;

pub use deadline::bound;
pub use host::host_facts;
pub use network::{endpoint_properties, namespace_properties};
pub use process::{Process, Stdio};
pub use storage::{Disk, attach_filter, detach_filter, grant_access, revoke_access};
pub use system::{System, enumerate};

/// Result of a call.
pub type Result<T> = std::result::Result<T, crate::Failure>;
