//! `create-scratch`: makes an image for a container's scratch disk.

use anyhow::Result;

use crate::sys::cli::CreateScratchArgs;
use crate::sys::linux::ext4;

/// Makes the image, or copies the cached one. A cache that isn't there yet is made first.
pub fn run(args: &CreateScratchArgs) -> Result<u8> {
    match &args.cache_path {
        None => ext4::image(&args.destpath, args.size)?,
        Some(cache) => {
            if !cache.exists() {
                ext4::image(cache, args.size)?;
            }
            ext4::copy(cache, &args.destpath)?;
        }
    }
    Ok(0)
}
