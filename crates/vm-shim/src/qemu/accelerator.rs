//! What runs the guest's instructions: KVM where it really works, else QEMU's translator.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use runhcs_spec::Accelerator;

use crate::daemon;

const KVM: &str = "/dev/kvm";

/// How long the probe's guest, a dozen instructions, may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// An accelerator that works here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usable {
    /// The processor's own virtualisation.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Usable {
    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// QEMU's argument for it. The buffer for translated code is bounded, in MiB, because it counts
    /// towards the VM's control groups; when it is full, QEMU begins anew.
    pub fn argument(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,tb-size=128",
        }
    }

    /// The device that QEMU needs for it.
    pub fn device(self) -> Option<&'static Path> {
        match self {
            Self::Kvm => Some(Path::new(KVM)),
            Self::Tcg => None,
        }
    }

    /// The processor the guest sees, by QEMU's name: everything that can be had.
    pub fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max",
        }
    }
}

/// Decides what to use.
///
/// # Errors
/// If KVM is asked for and can't be used, with the reason.
pub fn choose(wanted: Accelerator) -> anyhow::Result<Usable> {
    match wanted {
        Accelerator::Tcg => Ok(Usable::Tcg),
        Accelerator::Kvm => {
            probe().context("the accelerator KVM is configured but can't be used here")?;
            Ok(Usable::Kvm)
        }
        Accelerator::Auto => match probe() {
            Ok(()) => Ok(Usable::Kvm),
            Err(error) => {
                tracing::warn!(
                    reason = format!("{error:#}"),
                    "KVM can't be used; the virtual machine runs on TCG, which is much slower"
                );
                Ok(Usable::Tcg)
            }
        },
    }
}

/// Runs a tiny guest. In a process of its own, because where virtualisation is broken, running a
/// virtual CPU can take forever.
fn probe() -> anyhow::Result<()> {
    if !Path::new(KVM).exists() {
        bail!("there is no {KVM}");
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg("kvm-probe").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = daemon::die_with_us(&mut command).and_then(|()| command.spawn());
    let mut child = started.context("cannot start the KVM probe")?;
    let deadline = Instant::now() + PROBE_DEADLINE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("a small guest didn't finish within {} s", PROBE_DEADLINE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
