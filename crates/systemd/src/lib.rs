//! A client of systemd's manager: starts scopes, changes their properties, stops them.
//!
//! It speaks D-Bus (the D-Bus specification, version 0.43) over a socket that blocks: no thread, no
//! event loop. Only what talking to the manager takes is there.

mod bus;
mod error;
mod manager;
mod message;
mod text;
mod unit;
mod value;
mod wire;

pub use error::{Error, Result};
pub use manager::{Manager, Property, Whose};
pub use unit::{SliceName, UnitName};
pub use value::Value;
