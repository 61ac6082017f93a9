//! Block devices of a test's own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A loop device, detached when this is dropped.
#[derive(Debug)]
pub struct LoopDevice {
    /// Its node on this host.
    pub path: PathBuf,
}

impl LoopDevice {
    /// A block device with a file's content.
    pub fn new(file: &Path) -> Self {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self { path: String::from_utf8(output.stdout).unwrap().trim().into() }
    }

    /// Its number on this host.
    pub fn number(&self) -> (u32, u32) {
        let stat = rustix::fs::stat(&self.path).unwrap();
        (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}
