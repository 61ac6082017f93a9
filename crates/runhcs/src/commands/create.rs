//! `create`: everything but the start.

use anyhow::Result;
use runhcs_spec::Bundle;

use crate::cli::CreateArgs;
use crate::globals::Globals;

/// Creates a container.
pub fn run(globals: &Globals, args: &CreateArgs) -> Result<u8> {
    crate::create::create(globals, args, || Ok(Bundle::load(&args.bundle)?))?;
    Ok(0)
}
