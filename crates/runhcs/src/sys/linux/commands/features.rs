//! `features`: what this runtime supports, as the runtime specification's features document has it.

use std::io::Write;

use anyhow::{Context, Result};
use runhcs_container::features;
use serde_json::json;

/// Prints the features.
pub fn run() -> Result<u8> {
    let flags = features::seccomp_flags();
    let supported = flags.iter().filter(|(_, supported)| *supported).map(|(flag, _)| flag);
    let supported: Vec<_> = supported.collect();
    let known: Vec<_> = flags.iter().map(|(flag, _)| flag).collect();
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": runhcs_spec::OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": features::mount_options(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": features::SECCOMP_ACTIONS,
                "operators": features::SECCOMP_OPERATORS,
                "archs": features::seccomp_architectures(),
                "knownFlags": known,
                "supportedFlags": supported
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": {
                "modes": features::MEMORY_POLICY_MODES,
                "flags": features::MEMORY_POLICY_FLAGS
            },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true }
        },
        "annotations": { "io.runhcs.version": env!("CARGO_PKG_VERSION") },
        "potentiallyUnsafeConfigAnnotations": ["io.runhcs.isolation", "io.runhcs.vm."]
    });
    let text = serde_json::to_string_pretty(&features)?;
    writeln!(std::io::stdout(), "{text}").context("write to standard output")?;
    Ok(0)
}

/// Every capability that this runtime knows by name.
fn capabilities() -> Vec<String> {
    let mut names: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    names.sort();
    names
}
