//! `state`: a container's state as the runtime specification words it, with what runc adds.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use runhcs_compute::{ContainerId, Status};
use serde::Serialize;

use crate::cli::IdArgs;
use crate::existing::Existing;
use crate::globals::Globals;

/// A container's state, as `state` and `list --format json` print it. Its fields are in runc's
/// order; there are callers that look at the text.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    oci_version: &'a str,
    /// Its id.
    pub id: &'a ContainerId,
    /// The pid that stands for it on this host; 0 once it has stopped.
    pub pid: u32,
    /// What it is doing.
    pub status: Status,
    /// The bundle's directory.
    pub bundle: &'a Path,
    rootfs: &'a Path,
    /// When it was created.
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    /// Whom it belongs to.
    pub owner: &'a str,
    isolation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox_id: Option<&'a ContainerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_id: Option<&'a ContainerId>,
}

impl<'a> State<'a> {
    /// Asks for the state.
    pub fn of(existing: &'a Existing) -> Result<Self> {
        let status = existing.status()?;
        let record = &existing.record;
        Ok(Self {
            oci_version: &record.oci_version,
            id: &record.id,
            pid: existing.pid(status),
            status,
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: &record.annotations,
            owner: &record.owner,
            isolation: if record.vm.is_some() { "vm" } else { "process" },
            sandbox_id: record.sandbox_id.as_ref(),
            host_id: record.vm.as_ref().map(|vm| &vm.host_id),
        })
    }
}

/// Prints a container's state.
pub fn run(globals: &Globals, args: &IdArgs) -> Result<u8> {
    let (_, existing) = Existing::find(&globals.store, &args.id)?;
    let text = serde_json::to_string_pretty(&State::of(&existing)?)?;
    writeln!(std::io::stdout(), "{text}").context("write to standard output")?;
    Ok(0)
}
