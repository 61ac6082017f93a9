//! `state`: a container's state as the runtime specification words it, with what runc adds.

use std::io::Write;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cli::IdArgs;
use crate::existing::Existing;
use crate::globals::Globals;

/// Prints a container's state.
pub fn run(globals: &Globals, args: &IdArgs) -> Result<u8> {
    let (_, existing) = Existing::find(&globals.store, &args.id)?;
    let text = serde_json::to_string_pretty(&describe(&existing)?)?;
    writeln!(std::io::stdout(), "{text}").context("write to standard output")?;
    Ok(0)
}

/// A container's state, as `state` and `list --format json` print it.
pub fn describe(existing: &Existing) -> Result<Value> {
    let status = existing.status()?;
    let record = &existing.record;
    let mut state = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": existing.pid(status),
        "status": status,
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": record.owner,
        "isolation": if record.vm.is_some() { "vm" } else { "process" },
    });
    if !record.annotations.is_empty() {
        state["annotations"] = json!(record.annotations);
    }
    if let Some(sandbox) = &record.sandbox_id {
        state["sandboxId"] = json!(sandbox);
    }
    if let Some(vm) = &record.vm {
        state["hostId"] = json!(vm.host_id);
    }
    Ok(state)
}
