//! `spec`: a new `config.json`.

use std::io::Write;

use anyhow::{Context, Result};

use crate::cli::SpecArgs;

/// Writes a configuration into the bundle's directory; never over an existing one.
pub fn run(args: &SpecArgs) -> Result<u8> {
    let path = args.bundle.join("config.json");
    let what = || format!("write {}", path.display());
    let mut file = std::fs::File::create_new(&path).with_context(what)?;
    let text = serde_json::to_string_pretty(&runhcs_spec::windows::default_spec())?;
    file.write_all(text.as_bytes()).with_context(what)?;
    Ok(0)
}
