//! The names of what a VM shim keeps in its directory.

/// Locked (flock(2)) by the shim as long as it lives; holds its pid.
pub const LOCK: &str = "lock";
/// Locked by the processes of its VM as long as one of them lives.
pub const LIFE: &str = "life";
/// Why the VM has ended, if nobody had asked for that.
pub const OBITUARY: &str = "obituary";
/// The socket that takes requests.
pub const SOCKET: &str = "vm.sock";
/// What the guest wrote to its serial console.
pub const CONSOLE: &str = "console.log";
/// What it wrote before that, if it wrote much.
pub const OLD_CONSOLE: &str = "console.log.1";
