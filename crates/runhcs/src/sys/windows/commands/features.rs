//! `features`: what this runtime supports, as the runtime specification's features document has it.

use std::io::Write;

use anyhow::{Context, Result};
use serde_json::json;

/// Prints the features. The specification has no part for Windows.
pub fn run() -> Result<u8> {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": runhcs_spec::OCI_VERSION,
        "hooks": [],
        "mountOptions": ["bind", "rbind", "ro", "rw"],
        "annotations": { "io.runhcs.version": env!("CARGO_PKG_VERSION") },
        "potentiallyUnsafeConfigAnnotations": ["io.microsoft.virtualmachine."]
    });
    let text = serde_json::to_string_pretty(&features)?;
    writeln!(std::io::stdout(), "{text}").context("write to standard output")?;
    Ok(0)
}
