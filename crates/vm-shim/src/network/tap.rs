//! Tap devices (Documentation/networking/tuntap.rst).

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Makes a tap in this thread's network namespace; the kernel puts a number for `%d` in `pattern`.
/// It goes with its descriptor. Returns the descriptor and the tap's name.
pub fn open(pattern: &CStr) -> io::Result<(OwnedFd, String)> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: `ifreq` is plain data; all zeroes is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = pattern.to_bytes();
    // The last byte stays zero.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    // Packets come with the header that virtio's network device has, so checksums and
    // segmentation can be left to whoever does them best.
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes the request, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    let name = String::from_utf8(name).map_err(io::Error::other)?;
    Ok((file.into(), name))
}
