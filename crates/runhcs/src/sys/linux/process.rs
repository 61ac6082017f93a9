//! Processes that the state names, as the engine knows them.

use std::os::fd::OwnedFd;

use runhcs_compute::Result;
use runhcs_container::Init;
use runhcs_state::ProcessHandle;

/// The process as the engine names it.
pub fn init(process: ProcessHandle) -> Init {
    Init { pid: process.pid, start_time: process.start_time }
}

/// The process as a descriptor, which can't come to mean another one (pidfd_open(2)); `None` if it
/// has ended, or is none (0).
pub fn open(process: ProcessHandle) -> Result<Option<OwnedFd>> {
    init(process).open()
}
