//! VM options that are one of a few words.

use serde::{Deserialize, Serialize};

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// KVM where a probe shows that it works, else TCG with a warning.
    #[default]
    Auto,
    /// The processor's own virtualisation; an error where it can't be used.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// QEMU's machine type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Machine {
    /// Minimal, boots fastest.
    #[default]
    Microvm,
    /// A PC with PCI Express.
    Q35,
}

/// What is done with the guest's serial console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Console {
    /// What the guest writes to it is kept on the host, a bounded part of it, for when it fails.
    #[default]
    Log,
    /// There is none.
    Off,
}

/// Where the guest's random numbers come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entropy {
    /// The processor's instruction for it, and what the guest gathers.
    #[default]
    Cpu,
    /// The host's as well, by a virtual device.
    Host,
}

/// Whether a VM resumes from a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateUse {
    /// If there is one that fits.
    #[default]
    Auto,
    /// Every VM boots.
    Never,
}
