//! Utility VMs: the VM shim, and how others ask it.
//!
//! A VM shim serves any number of requests at the same time, each on a connection of its own.

mod boot;
mod formatter;
mod holdings;
mod lcow;
mod machine;
mod network;
pub mod shim;
mod slots;
mod wcow;

pub use boot::remove_own_disk;
pub use formatter::Formatter;

use std::os::windows::io::AsHandle;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use runhcs_compute::ContainerId;
use runhcs_state::Record;
use serde::{Deserialize, Serialize};

use super::pipe::{self, Connection};
use super::process::{Child, Launch as Process};
use super::verdict;
use crate::globals::Globals;

/// The name of the value with a VM shim's process, in its host's entry.
pub const VM_SHIM: &str = "vm-shim";
/// How long a VM shim may take to answer: some calls of the service, each of which has its own
/// deadline.
const ANSWER: Duration = Duration::from_secs(600);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// What a VM shim is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Create the container of the store's entry in the VM. Its compute system is kept open until
    /// the connection ends.
    Create,
    /// Have the VM follow its network namespace.
    Sync,
    /// Free all that a container has in the VM.
    Unmount,
    /// Free only the container's own disks.
    UnmountDisk,
}

/// A request, as its connection's only message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Request {
    #[serde(rename = "ID")]
    id: ContainerId,
    op: Op,
}

/// A VM that has a shim.
#[derive(Clone, Debug)]
pub struct Vm {
    host: ContainerId,
    host_unique_id: String,
}

/// The connection of a request that was granted. As long as it is open, so is the compute system
/// that the request created.
#[derive(Debug)]
pub struct Granted(#[expect(dead_code, reason = "it only has to be open")] Connection);

impl Vm {
    /// The VM that a container is in.
    pub fn of(record: &Record) -> Option<Self> {
        let place = record.vm.clone()?;
        Some(Self { host: place.host_id, host_unique_id: place.host_unique_id })
    }

    /// Asks for something on behalf of a container, and waits until it is done.
    pub fn request(&self, id: &ContainerId, op: Op) -> Result<Granted> {
        let what = || format!("ask the VM shim of {} to {op:?} for {id}", self.host);
        let connection = match Connection::connect(&pipe::of_vm(&self.host_unique_id), CONNECT) {
            Err(error) if pipe::is_absent(&error) => {
                return Err(error).with_context(|| format!("the VM of {} has ended", self.host));
            }
            other => other.with_context(what)?,
        };
        let request = serde_json::to_vec(&Request { id: id.clone(), op })?;
        connection.send(&request, CONNECT).with_context(what)?;
        let answer = connection.receive(Some(ANSWER)).with_context(what)?;
        verdict::understand(&answer, "VM shim")?;
        Ok(Granted(connection))
    }
}

/// How a VM shim is started.
pub struct Launch<'a> {
    /// The VM's host.
    pub host: &'a ContainerId,
    /// Named pipe for the serial console.
    pub console: Option<&'a str>,
    /// Where it logs.
    pub log: Option<&'a PathBuf>,
}

/// Starts a VM shim and waits until its VM is up.
pub fn launch(globals: &Globals, launch: &Launch<'_>) -> Result<Child> {
    let (said, reporter) = std::io::pipe().context("make a pipe")?;
    let mut arguments = globals.shim_arguments(launch.log)?;
    arguments.extend(["vm-shim", "--id", launch.host.as_str()].map(str::to_owned));
    if let Some(console) = launch.console {
        arguments.extend(["--console".to_owned(), console.to_owned()]);
    }
    let child = Process {
        arguments,
        stdin: None,
        output: Some(reporter.as_handle()),
        passed: Vec::new(),
        keeps_console: false,
    }
    .spawn()?;
    drop(reporter);
    verdict::judge(child, said, "VM shim", "--vm-log")
}
