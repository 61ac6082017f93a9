//! The Windows compute service: containers and utility VMs of the Host Compute Service.
//!
//! - [`schema`]: the service's JSON documents as types;
//! - [`options`]: what a configuration's annotations and resources ask for;
//! - [`documents`]: from a configuration and its options to documents;
//! - [`command_line`]: Windows command lines from arguments;
//! - [`signals`]: what a signal becomes in the guest;
//! - [`failure`]: the service's failures by what they mean;
//! - `service`: the calls themselves, on Windows only.
//!
//! All but the calls is pure and is compiled and tested on every platform.

pub mod command_line;
pub mod documents;
mod error;
pub mod failure;
pub mod options;
pub mod schema;
#[cfg(windows)]
pub mod service;
pub mod signals;

pub use error::{Invalid, Result};
pub use failure::{Failure, Kind};
