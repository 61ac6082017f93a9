//! A utility VM as the command sees it: launching the VM shim, asking things of it, and standing
//! in on the host for a process that runs in the VM. Synchronous and small; the VM itself is the
//! business of `runhcs-vm-shim`.

mod attachment;
mod connection;
pub mod console;
mod container;
pub mod deadline;
pub mod files;
mod launch;
mod mount_points;

mod pump;
mod signals;
pub mod template;
mod trees;
mod vm;

pub use attachment::{Attachment, Ended, LeftBehind, LocalStdio};
pub use container::VmContainer;
pub use launch::{Launch, SUCCESS};
pub use vm::Vm;
