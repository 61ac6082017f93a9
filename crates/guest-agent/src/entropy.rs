//! The guest kernel's random number generator (random(4)).

use std::fs::File;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use runhcs_protocol::template::SEED;

/// `_IOW('R', 0x03, int[2])`, linux/random.h: adds to the input pool, and credits it.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
/// `_IO('R', 0x07)`, linux/random.h: makes the generator's key anew from the input pool.
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// `struct rand_pool_info`, linux/random.h.
#[repr(C)]
struct PoolInfo {
    /// How much the content is worth, in bits.
    entropy_count: libc::c_int,
    /// Bytes of the content.
    buf_size: libc::c_int,
    buf: [u8; SEED],
}

/// Has whatever is drawn from now on depend on `seed`, on every processor.
///
/// # Errors
/// If the kernel refuses; then what is drawn may be known to others.
pub fn reseed(seed: [u8; SEED]) -> Result<()> {
    let device = File::options().write(true).open("/dev/urandom").context("open /dev/urandom")?;
    let info = PoolInfo {
        entropy_count: 8 * SEED as libc::c_int,
        buf_size: SEED as libc::c_int,
        buf: seed,
    };
    // SAFETY: the kernel reads the structure, which is laid out as it expects, with as many bytes of
    // content as it says.
    let added = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY as _, &raw const info) };
    if added != 0 {
        return Err(std::io::Error::last_os_error()).context("add entropy");
    }
    // SAFETY: this request has no argument.
    let reseeded = unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG as _) };
    if reseeded != 0 {
        return Err(std::io::Error::last_os_error()).context("reseed the random number generator");
    }
    Ok(())
}
