//! The bundle that all run: busybox, the mounts and limits of `runc spec`, no terminal.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Writes a bundle that runs `program`, and returns its directory.
pub fn write(runhcs: &Path, at: &Path, program: &[&str]) -> Result<PathBuf> {
    for directory in ["bin", "dev", "proc", "sys", "tmp"] {
        std::fs::create_dir_all(at.join("rootfs").join(directory))?;
    }
    std::fs::copy("/bin/busybox", at.join("rootfs/bin/busybox"))
        .context("copy /bin/busybox (package busybox-static)")?;
    for applet in ["true", "sleep", "sh"] {
        std::os::unix::fs::symlink("busybox", at.join("rootfs/bin").join(applet))?;
    }
    let made = Command::new(runhcs).arg("spec").arg("--bundle").arg(at).status()?;
    ensure!(made.success(), "{} spec failed", runhcs.display());
    let path = at.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    // The version that the oldest of the peers knows.
    config["ociVersion"] = json!("1.0.2");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(program);
    std::fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(at.to_owned())
}
