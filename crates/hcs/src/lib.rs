//! The Windows compute service: containers and utility VMs of the Host Compute Service.
//!
//! - [`schema`]: the service's JSON documents as types;
//! - [`options`]: what a configuration's annotations and resources ask for;
//! - [`documents`]: from a configuration and its options to documents;
//! - [`command_line`]: Windows command lines from arguments;
//! - [`signals`]: what a signal becomes in the guest.
//!
//! All of this is pure and is compiled and tested on every platform.

pub mod command_line;
pub mod documents;
mod error;
pub mod options;
pub mod schema;
pub mod signals;

pub use error::{Invalid, Result};
