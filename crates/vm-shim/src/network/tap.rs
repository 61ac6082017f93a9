//! Tap devices (Documentation/networking/tuntap.rst).

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, bail};
use futures_util::TryStreamExt;
use rtnetlink::{Handle, LinkUnspec};

/// A tap of the pod's network namespace. It goes with the last descriptor of it.
#[derive(Debug)]
pub struct Tap {
    /// Its index.
    pub index: u32,
    /// It, until QEMU has it.
    pub fd: Option<OwnedFd>,
}

impl Tap {
    /// Makes one in this thread's network namespace, which `handle` speaks for. It is down.
    pub async fn open(handle: &Handle) -> anyhow::Result<Self> {
        let (fd, name) = open(c"rhtap%d").context("cannot make a tap device")?;
        let mut links = handle.link().get().match_name(name).execute();
        let Some(link) = links.try_next().await.context("cannot find the tap device")? else {
            bail!("the tap device has gone");
        };
        Ok(Self { index: link.header.index, fd: Some(fd) })
    }

    /// Brings it up, with this MTU.
    pub async fn up(&self, handle: &Handle, mtu: u32) -> anyhow::Result<()> {
        let up = LinkUnspec::new_with_index(self.index).mtu(mtu).up().build();
        handle.link().set(up).execute().await.context("cannot bring the tap device up")
    }

    /// Brings it down.
    pub async fn down(&self, handle: &Handle) -> anyhow::Result<()> {
        let down = LinkUnspec::new_with_index(self.index).down().build();
        handle.link().set(down).execute().await.context("cannot bring the tap device down")
    }
}

/// Makes a tap in this thread's network namespace; the kernel puts a number for `%d` in `pattern`.
/// It goes with its descriptor. Returns the descriptor and the tap's name.
fn open(pattern: &CStr) -> io::Result<(OwnedFd, String)> {
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
