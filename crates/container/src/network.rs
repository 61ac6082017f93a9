//! The loopback interface of a new network namespace, which is made down (netdevice(7)).

use std::os::fd::AsRawFd;

use runhcs_compute::Result;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error::Context;

/// Brings `lo` of the caller's network namespace up.
pub fn loopback_up() -> Result<()> {
    let what = || "bring the loopback interface up".to_owned();
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .context(what)?;
    // SAFETY: `ifreq` is plain data; all zeroes is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads the interface's name and the flags from the request.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    if result < 0 { Err(std::io::Error::last_os_error()).context(what) } else { Ok(()) }
}
