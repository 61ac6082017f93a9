//! What the stand-in asks of the system it runs on. The service is for Windows; elsewhere it runs
//! for its unit tests, without pipes.

#[cfg(not(windows))]
mod other;
#[cfg(windows)]
mod windows;

#[cfg(not(windows))]
pub use other::*;
#[cfg(windows)]
pub use windows::*;
