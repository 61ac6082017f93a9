//! The Windows compute service: containers and utility VMs of the Host Compute Service.
//!
//! - [`schema`]: the service's JSON documents as types;
//! - `sys` (Windows only): its calls, layers and networks behind safe types.
//!
//! All but `sys` is pure and is compiled and tested on every platform.

pub mod schema;
