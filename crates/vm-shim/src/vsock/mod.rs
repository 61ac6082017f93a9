//! The VM's vsock device, in user space.
//!
//! QEMU gives the device the guest's memory and virtqueues over the vhost-user protocol. Why not
//! the kernel's own device: see `docs/decisions/0001-user-space-vsock.md`.

mod connection;
mod device;
mod mux;
mod packet;

pub use device::{Dialer, Vsock};
