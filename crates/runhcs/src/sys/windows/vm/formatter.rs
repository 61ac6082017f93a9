//! A throw-away VM with a Linux guest that makes file systems: nothing of Windows can make one that
//! Linux writes to.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use runhcs_hcs::documents::{
    ScsiSlot, bare_disk, block_directory, device_path, formatting_vm, guest_process, make_ext4,
};
use runhcs_hcs::options::{RootFs, VmOptions};
use runhcs_hcs::service::{System, bound, grant_access, host_facts, revoke_access};
use serde_json::json;
use uuid::Uuid;

use super::boot::linux_guest;
use crate::globals::Globals;

/// Memory of the VM, in MiB.
const MEMORY_MB: u64 = 512;
/// How long the guest may take to find a disk.
const DISCOVERY: Duration = Duration::from_secs(60);
/// How long to wait before the guest is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a small command may take.
const COMMAND: Duration = Duration::from_secs(60);
/// How long making a file system may take.
const FORMAT: Duration = Duration::from_secs(600);
/// How long the VM may take to end.
const END: Duration = Duration::from_secs(60);
/// The longest output of a command that is listened to, in bytes.
const LONGEST: u64 = 64 << 10;

/// The VM. It ends when this is dropped.
pub struct Formatter {
    system: System,
    /// Where the disk is put.
    slot: ScsiSlot,
    has_ended: bool,
}

/// What a command in the guest did.
struct Outcome {
    code: u32,
    output: String,
    error: String,
}

impl Formatter {
    /// Starts the VM. Its memory is the host's physical memory unless `virtual_memory` says that it
    /// needn't be.
    pub fn start(globals: &Globals, virtual_memory: bool) -> Result<Self> {
        let id = format!("format-{}@vm", Uuid::new_v4());
        let spec: Spec =
            serde_json::from_value(json!({"ociVersion": runhcs_spec::OCI_VERSION, "linux": {}}))?;
        let host = host_facts();
        let mut options = VmOptions::from_spec(&spec, host, None)?;
        options.memory_mb = MEMORY_MB;
        options.allow_overcommit = virtual_memory;
        let mut guest = linux_guest(&spec, host, &globals.config.boot_files())?;
        // Persistent memory needs virtual memory behind it.
        guest.pmem_count = virtual_memory.into();
        let root_is_disk = guest.root_fs == RootFs::Vhd && !virtual_memory;
        let slot = ScsiSlot { controller: 0, lun: root_is_disk.into() };
        let document = formatting_vm(&id, &globals.owner, &options, &guest);
        let system = System::create(&id, &document)?;
        let formatter = Self { system, slot, has_ended: false };
        formatter.system.start()?;
        Ok(formatter)
    }

    /// Makes ext4 on a disk: a VHD or VHDX file, or a disk of the host, named by an absolute path.
    pub fn format(&self, disk: &Path) -> Result<()> {
        let path = disk.to_str().context("the disk's path is not Unicode")?;
        let what = || format!("make ext4 on {path}");
        grant_access(self.system.id(), disk)?;
        let change = bare_disk(self.slot, path);
        let formatted =
            self.system.modify(&change.add).map_err(anyhow::Error::from).and_then(|()| {
                let made = self.make_file_system().with_context(what);
                // What was written is in the file only once the disk is out.
                made.and(self.system.modify(&change.remove).map_err(anyhow::Error::from))
            });
        let revoked = revoke_access(self.system.id(), disk);
        formatted?;
        Ok(revoked?)
    }

    /// Ends the VM, and returns when it has ended.
    pub fn end(mut self) -> Result<()> {
        self.has_ended = true;
        Ok(self.system.end(END)?)
    }

    fn make_file_system(&self) -> Result<()> {
        let directory = block_directory(self.slot);
        let end = Instant::now() + bound(DISCOVERY);
        while self.run(["test", "-d", &directory].map(str::to_owned).to_vec(), COMMAND)?.code != 0 {
            if Instant::now() > end {
                bail!("the guest doesn't find the disk: it has no {directory}");
            }
            thread::sleep(PAUSE);
        }
        let listing = self.succeed(["ls", &directory].map(str::to_owned).to_vec(), COMMAND)?;
        let device = device_path(&listing).with_context(|| {
            format!("{directory} in the guest holds {listing:?}, not one device")
        })?;
        self.succeed(make_ext4(&device), FORMAT).map(drop)
    }

    /// Runs a command in the guest that has to succeed, and returns what it says.
    fn succeed(&self, arguments: Vec<String>, limit: Duration) -> Result<String> {
        let line = arguments.join(" ");
        let Outcome { code, output, error } = self.run(arguments, limit)?;
        if code != 0 {
            bail!("`{line}` in the guest ended with {code}: {}", error.trim());
        }
        Ok(output)
    }

    fn run(&self, arguments: Vec<String>, limit: Duration) -> Result<Outcome> {
        let line = arguments.join(" ");
        let (process, pipes) = self.system.create_process(&guest_process(arguments))?;
        let (output, error) = (listen(pipes.stdout), listen(pipes.stderr));
        let Some(code) = process.wait(bound(limit))? else {
            bail!("`{line}` in the guest was not finished in time");
        };
        Ok(Outcome { code, output: heard(output), error: heard(error) })
    }
}

impl Drop for Formatter {
    fn drop(&mut self) {
        // Its last handle ends it in any case.
        if !self.has_ended {
            let _ = self.system.terminate();
        }
    }
}

/// Listens to an output, so that the process never waits for somebody who does.
fn listen(pipe: Option<File>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(pipe) = pipe {
            // What was heard before a failure counts.
            let _ = pipe.take(LONGEST).read_to_end(&mut text);
        }
        text
    })
}

fn heard(listener: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&listener.join().unwrap_or_default()).into_owned()
}
