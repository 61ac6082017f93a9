//! `prepare-disk`: makes a file system on a disk that exists.

use anyhow::Result;

use crate::sys::cli::PrepareDiskArgs;
use crate::sys::linux::ext4;

/// Makes an ext4 file system on an image or a block device.
pub fn run(args: &PrepareDiskArgs) -> Result<u8> {
    ext4::prepare(&args.destpath, args.force)?;
    Ok(0)
}
