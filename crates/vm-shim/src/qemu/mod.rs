//! The VM itself: a QEMU process, its command line, and its monitor.

mod arguments;
mod drives;
mod kvm_probe;
mod monitor;
mod timestamp;

pub mod accelerator;

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use runhcs_uvm::Launch;
use rustix::fs::Access;

pub use arguments::Sockets;
pub use drives::{Drive, Sectors};
pub use kvm_probe::run as run_kvm_probe;
pub use monitor::Monitor;

use crate::daemon;
use crate::inherit::Inherit;
use accelerator::Usable;

/// Finds the QEMU binary.
///
/// # Errors
/// If there is none, saying what to install.
pub fn find(program: &Path) -> anyhow::Result<PathBuf> {
    let executable =
        |path: &Path| path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok();
    if program.components().count() > 1 {
        if !executable(program) {
            bail!("there is no QEMU at {}; install qemu-system-x86", program.display());
        }
        return Ok(program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|candidate| executable(candidate))
        .with_context(|| format!("{} is not in PATH; install qemu-system-x86", program.display()))
}

/// Checks that the guest's kernel or initramfs can be read.
pub fn check_image(what: &str, path: &Path) -> anyhow::Result<()> {
    std::fs::File::open(path).map(drop).with_context(|| {
        format!(
            "cannot open the guest's {what} {}; build it with `runhcs-guest-image build`",
            path.display()
        )
    })
}

/// Starts QEMU, stopped by nothing: the guest boots at once.
///
/// # Errors
/// If its process can't be started.
pub fn spawn(
    program: &Path,
    launch: &Launch,
    accelerator: Usable,
    sockets: &Sockets<'_>,
    lock: BorrowedFd<'_>,
    messages: impl Into<Stdio>,
) -> anyhow::Result<Child> {
    let arguments = arguments::arguments(launch, accelerator, sockets);
    tracing::debug!(program = %program.display(), ?arguments, "starting QEMU");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").as_deref().unwrap_or(OsStr::new("/usr/bin")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages);
    daemon::die_with_us(&mut command);
    let Sockets { console, monitor, vsock, virtiofs, network } = sockets;
    let inherited = [console, monitor, vsock, virtiofs].map(Inherit::new);
    let taps: Vec<_> = network.iter().map(|(_, tap)| Inherit::new(*tap)).collect();
    let lock = Inherit::new(&lock);
    for result in inherited.iter().chain(&taps).chain([&lock]) {
        if let Err(error) = result {
            bail!("cannot hand QEMU its descriptors: {error}");
        }
    }
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}
