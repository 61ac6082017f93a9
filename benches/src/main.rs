//! `compare`: runhcs, its peers and the floor, side by side in one run. Candidates take turns,
//! medians are compared, and what counts is the ratio.

mod bundle;
mod devices;
mod measure;
mod network;
mod process;
mod table;
mod vm;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// Compares runhcs with other runtimes and with a bare QEMU.
#[derive(Debug, Parser)]
struct Options {
    /// The command, built for release.
    #[arg(long)]
    runhcs: PathBuf,
    /// The VM shim; without it no VM is measured.
    #[arg(long, requires = "image")]
    vm_shim: Option<PathBuf>,
    /// The directory of the guest image.
    #[arg(long)]
    image: Option<PathBuf>,
    /// Samples of each candidate.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Samples of each candidate where VMs boot.
    #[arg(long, default_value_t = 7)]
    vm_rounds: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    enter_mount_namespace()?;
    leave_unified_hierarchy()?;
    let work = tempfile::Builder::new().prefix("runhcs-bench-").tempdir()?;
    let state = StateMount::new(work.path().join("state"))?;
    let floor = std::env::current_exe()?.with_file_name("floor");
    let runhcs = options.runhcs.canonicalize().context("find the command")?;
    process::compare(&runhcs, &floor, work.path(), options.rounds)?;
    if let (Some(shim), Some(image)) = (options.vm_shim, options.image) {
        let vm = vm::Vm { shim: shim.canonicalize()?, image: image.canonicalize()? };
        vm::compare(&runhcs, &vm, work.path(), options.vm_rounds)?;
    }
    drop(state);
    Ok(())
}

/// A tmpfs for everybody's state, as /run is one.
struct StateMount(PathBuf);

impl StateMount {
    fn new(path: PathBuf) -> Result<Self> {
        std::fs::create_dir(&path)?;
        let none = None::<&std::ffi::CStr>;
        rustix::mount::mount("tmpfs", &path, "tmpfs", MountFlags::empty(), none)
            .context("mount a tmpfs for the state")?;
        Ok(Self(path))
    }
}

impl Drop for StateMount {
    fn drop(&mut self) {
        // A benchmark that failed may have left a process with files in it.
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// What is mounted here is nobody else's.
fn enter_mount_namespace() -> Result<()> {
    // SAFETY: this process has one thread, and shares no file system state with another.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
        .context("make a mount namespace")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).context("make mounts private")
}

/// crun 1.8 refuses a host that has both versions of cgroups, so everybody is measured without the
/// second.
fn leave_unified_hierarchy() -> Result<()> {
    let unified = "/sys/fs/cgroup/unified";
    if !std::path::Path::new(unified).exists() {
        return Ok(());
    }
    rustix::mount::unmount(unified, UnmountFlags::empty()).context("unmount the v2 hierarchy")
}
