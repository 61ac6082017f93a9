//! Having the VM shim make a template.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runhcs_compute::{Error, Result};
use runhcs_spec::VmOptions;
use serde::{Deserialize, Serialize};

use super::TemplateId;
use crate::launch::{MARGIN, Started};

/// The most of an error that is read, in bytes.
const MAX_ERROR: u64 = 64 << 10;

/// What the VM shim is told: the JSON document on its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateRequest {
    /// For VMs with these options.
    pub options: VmOptions,
    /// The store's directory.
    pub store: PathBuf,
    /// `tracing` filter for the shim's log.
    pub log_level: String,
    /// Log lines as JSON.
    pub log_json: bool,
}

/// Has the VM shim `program` boot a VM and make a template of it, its log going to `log`.
/// `waiting` is called every now and then meanwhile.
///
/// # Errors
/// The shim's own, or that it didn't succeed in time. Nothing of the VM is left then, and no new
/// template.
pub fn create(
    program: &Path,
    request: &TemplateRequest,
    log: OwnedFd,
    waiting: &mut dyn FnMut(),
) -> Result<TemplateId> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
        Error::failed("cannot make a template", source)
    };
    // Saving takes a while, too.
    let allowed = Duration::from_secs(request.options.boot_timeout_seconds) * 2 + MARGIN;
    let mut shim = Started::new(program, "template", request, log).map_err(failed)?;
    let answer = match shim.read_until(Instant::now() + allowed, waiting) {
        Ok(answer) => answer,
        Err(error) => {
            // What it has started ends with it.
            let _ = shim.child.kill();
            let _ = shim.child.wait();
            return Err(failed(error.into()));
        }
    };
    let status = shim.child.wait().map_err(|error| failed(error.into()))?;
    let mut text = String::new();
    answer
        .as_slice()
        .take(MAX_ERROR)
        .read_to_string(&mut text)
        .map_err(|error| failed(error.into()))?;
    if status.success() {
        shim.written.map_err(|error| failed(error.into()))?;
        return text.parse().map_err(|error: super::InvalidTemplateId| failed(error.into()));
    }
    if text.is_empty() {
        return Err(failed(format!("the VM shim ended without a word ({status})").into()));
    }
    Err(failed(text.into()))
}
