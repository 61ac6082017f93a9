//! `compare`: runhcs, its peers and the floor, side by side in one run. Candidates take turns,
//! medians are compared, and what counts is the ratio.

mod bundle;
mod confine;
mod devices;
mod measure;
mod network;
mod process;
mod table;
mod vm;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

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
    /// Samples of each candidate without a VM; none with 0.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Containers of a sample that has many in a row.
    #[arg(long, default_value_t = 100)]
    many: usize,
    /// Samples of each candidate where VMs boot.
    #[arg(long, default_value_t = 7)]
    vm_rounds: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runhcs = options.runhcs.canonicalize().context("find the command")?;
    let floor = std::env::current_exe()?.with_file_name("floor");
    // Removed when all that was started has ended, however it ended.
    let work = tempfile::Builder::new().prefix("runhcs-bench-").tempdir()?;
    confine::run(
        || compare(&options, &runhcs, &floor, work.path()),
        || delete_all(&runhcs, &work.path().join("state")),
    )
}

/// Deletes the containers that are left, for the sake of their control groups. Every runtime's state
/// is in a directory of its name, and that of containers in VMs in `vm`.
fn delete_all(runhcs: &Path, state: &Path) {
    for root in std::fs::read_dir(state).into_iter().flatten().flatten() {
        let name = root.file_name();
        let program = if name == "runhcs" || name == "vm" { runhcs } else { Path::new(&name) };
        process::delete_all(program, &root.path());
    }
}

fn compare(options: &Options, runhcs: &Path, floor: &Path, work: &Path) -> Result<()> {
    confine::mount_state(&work.join("state"))?;
    if options.rounds > 0 {
        process::compare(runhcs, floor, work, options.rounds, options.many)?;
    }
    if let (Some(shim), Some(image)) = (&options.vm_shim, &options.image) {
        let vm = vm::Vm { shim: shim.canonicalize()?, image: image.canonicalize()? };
        vm::compare(runhcs, &vm, work, options.vm_rounds)?;
    }
    Ok(())
}
