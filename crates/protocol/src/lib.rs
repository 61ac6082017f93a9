//! What the command, the VM shim and the guest agent say to each other. Types and framing only;
//! no sockets.
//!
//! ```text
//! runhcs ──(unix socket, one request a connection, descriptors attached)──▶ VM shim
//! VM shim ──(vsock, one connection, many requests at once)──▶ guest agent
//! container shim ──(vsock, one connection a stream, handed out by the VM shim)──▶ guest agent
//! ```
//!
//! Every message is a frame: four bytes of length, most significant first, then that much JSON.
//! A reader states the most it will accept, so neither side can make the other allocate without
//! bound. Nothing the guest says is trusted: its replies are data to be checked.

pub mod agent_log;
pub mod frame;
pub mod guest;
pub mod network;
pub mod processes;
pub mod shim;
pub mod stream;
pub mod template;

/// The vsock port on the host that the agent dials once, at boot. That connection carries every
/// [`guest::Request`]; the host stops listening as soon as it has it, so that no process in the
/// guest can pose as the agent later.
pub const CONTROL_PORT: u32 = 1023;

/// The vsock port in the guest on which the agent accepts stdio streams. Ports below 1024 need
/// `CAP_NET_BIND_SERVICE` in the guest's first user namespace (vsock(7)).
pub const STREAM_PORT: u32 = 1022;

/// The virtiofs tag of the pod's shared file system.
pub const SHARE_TAG: &str = "runhcs";

/// Where the agent mounts the shared file system in the guest.
pub const GUEST_SHARE: &str = "/run/runhcs/share";

/// Below this directory a container's configuration names namespaces of another container in the
/// VM, as `<container>/<file of /proc/pid/ns>`. There is no such directory: the agent finds them by
/// it, also when the other container's first process, and so its place in `/proc`, is gone.
pub const NAMESPACES: &str = "/run/runhcs/namespaces";

/// Exchanged when the agent connects; both sides refuse any other version.
pub const VERSION: u32 = 7;
