//! `prepare-disk`: makes ext4 on a disk that is there.

use anyhow::{Context, Result};
use runhcs_hcs::documents::is_physical;

use super::create_scratch::absolute;
use crate::globals::Globals;
use crate::sys::cli::PrepareDiskArgs;
use crate::sys::vm::Formatter;

/// Makes the file system. What was on the disk is lost.
pub fn run(globals: &Globals, args: &PrepareDiskArgs) -> Result<u8> {
    let mut disk = args.destpath.clone();
    if !is_physical(&disk.to_string_lossy()) {
        disk = absolute(&disk)?;
        std::fs::metadata(&disk).with_context(|| format!("find the disk {}", disk.display()))?;
    }
    let formatter = Formatter::start(globals, false)?;
    formatter.format(&disk)?;
    formatter.end()?;
    Ok(0)
}
