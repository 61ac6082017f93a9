//! A stand-in for Windows' Host Compute Service, so that the Windows programs can be tested under
//! Wine, which has no such service.
//!
//! - a **service** (the program `hcs-sim`), which has the compute systems, their processes, the
//!   layers and the networks, as the real one is a service of the host;
//! - a **library** for the programs under test (built for Windows, the DLL under the names
//!   `computecore.dll`, `computestorage.dll` and `computenetwork.dll`), which passes every call on;
//! - a **guest** (the program `hcs-sim-guest`), whose few commands are what Linux containers run.
//!
//! The service is strict where the real one may be lenient: every document is checked against the
//! public schema, and a call that isn't allowed in a system's state fails with the real `HRESULT`.
//! It records every call and can fail it, hang in it, or kill the caller ([`faults`]).

pub mod client;
#[cfg(windows)]
mod dll;
pub mod faults;
pub mod guest;
pub mod hresult;
mod model;
pub mod schema;
pub mod service;
mod sys;
pub mod wire;
