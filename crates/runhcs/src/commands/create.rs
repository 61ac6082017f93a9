//! `create`: everything but the start.

use anyhow::Result;

use crate::cli::CreateArgs;
use crate::globals::Globals;
use crate::sys;

/// Creates a container.
pub fn run(globals: &Globals, args: &CreateArgs) -> Result<u8> {
    crate::create::create(globals, args, || sys::load_bundle(&args.bundle))?;
    Ok(0)
}
