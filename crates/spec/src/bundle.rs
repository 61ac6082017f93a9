//! A bundle: the directory with `config.json`, and the configuration read from it.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};

use crate::Result;

/// A loaded and validated bundle, all paths absolute.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The bundle's directory, absolute and without symbolic links.
    pub path: PathBuf,
    /// Its configuration; `root.path` and the sources of bind mounts are absolute.
    pub spec: Spec,
}

impl Bundle {
    /// Reads and validates `config.json` in `path`.
    pub fn load(_path: &Path) -> Result<Self> {
        todo!()
    }

    /// The root file system's directory.
    pub fn rootfs(&self) -> &Path {
        todo!()
    }
}

/// Reads and validates a process document, as `exec --process` takes it.
pub fn load_process(_path: &Path) -> Result<Process> {
    todo!()
}
