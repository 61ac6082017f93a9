//! The VM itself: a QEMU process, its command line, and its monitor.

mod arguments;
mod confined;
mod drives;
mod hotplug;
mod kvm_probe;
mod monitor;
mod root;
mod snapshot;
mod timestamp;

pub mod accelerator;

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use rustix::fs::Access;

pub use arguments::{Sockets, Start, for_machine, for_template, for_vm, template_command_line};
pub use confined::{Options as ConfinedOptions, run as run_confined};
pub use drives::{Drive, Sectors};
pub use hotplug::MEMORY_SLOTS;
pub use kvm_probe::run as run_kvm_probe;
pub use monitor::Monitor;
pub use root::Root;
pub use snapshot::Late;

use crate::daemon::{self, Myself};
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

/// Checks that the guest's kernel or initramfs can be read, also by QEMU, which is nobody's user.
pub fn check_image(what: &str, path: &Path) -> anyhow::Result<()> {
    let file = std::fs::File::open(path).with_context(|| {
        format!(
            "cannot open the guest's {what} {}; build it with `runhcs-guest-image build`",
            path.display()
        )
    })?;
    let metadata = file.metadata();
    let mode = metadata.with_context(|| format!("cannot examine {}", path.display()))?.mode();
    if mode & 0o004 == 0 {
        bail!(
            "the guest's {what} {} can't be read by the user that QEMU runs as; make it readable \
             for everybody with `chmod a+r`",
            path.display()
        );
    }
    Ok(())
}

/// Starts QEMU in `root`, without privileges, with `arguments`. It inherits the descriptors
/// `inherited`, by the same numbers.
///
/// # Errors
/// If its process can't be started.
pub fn spawn(
    program: &Path,
    root: &Root,
    user: u32,
    accelerator: Usable,
    arguments: &[OsString],
    inherited: &[BorrowedFd<'_>],
    messages: impl Into<Stdio>,
) -> anyhow::Result<Child> {
    let what = || format!("cannot start {}", program.display());
    tracing::debug!(program = %program.display(), ?arguments, "starting QEMU");
    let parent = Myself::open().with_context(what)?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("runhcs-vm-shim")
        .arg("qemu")
        .arg(format!("--parent={}", parent.as_fd().as_raw_fd()))
        .arg("--root")
        .arg(root.path())
        .arg(format!("--uid={user}"));
    if let Some(device) = accelerator.device() {
        let metadata = device.metadata().with_context(|| format!("no {}", device.display()))?;
        command.arg(format!("--group={}", metadata.gid()));
    }
    command.arg("--").arg(program).args(arguments);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(messages);
    daemon::die_with_us(&mut command).with_context(what)?;
    let parent = parent.as_fd();
    let inherited: Vec<_> = inherited.iter().chain([&parent]).map(Inherit::new).collect();
    for result in &inherited {
        if let Err(error) = result {
            bail!("cannot hand QEMU its descriptors: {error}");
        }
    }
    daemon::spawn_in_pid_namespace(&mut command).with_context(what)
}

/// The user of this VM alone: no other VM has the same as long as this process lives.
///
/// # Errors
/// If there are not enough users.
pub fn user(base: u32) -> anyhow::Result<u32> {
    let user = base.checked_add(std::process::id());
    user.with_context(|| format!("the user ids above {base} don't suffice for all processes"))
}
