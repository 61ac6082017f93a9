//! The configuration file's content on Windows.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::load;

/// Where the configuration is beneath `%ProgramData%`. It may be missing there.
const DEFAULT: &str = r"runhcs\config.toml";
/// Where Linux guests' boot files are beneath `%ProgramFiles%`, where Microsoft's packages put them.
const BOOT_FILES: &str = "Linux Containers";

/// The configuration file's content; everything has a default.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    /// `--owner`'s default.
    pub owner: Option<String>,
    /// The folder with the kernel and root file system of Linux guests.
    pub boot_files: Option<PathBuf>,
}

impl Config {
    /// Reads the file that was named, or the default one if it exists.
    pub fn load(named: Option<&Path>) -> anyhow::Result<Self> {
        load(named, &system_folder("ProgramData", r"C:\ProgramData").join(DEFAULT))
    }

    /// The folder with the boot files of Linux guests.
    pub fn boot_files(&self) -> PathBuf {
        let usual = || system_folder("ProgramFiles", r"C:\Program Files").join(BOOT_FILES);
        self.boot_files.clone().unwrap_or_else(usual)
    }
}

fn system_folder(variable: &str, usual: &str) -> PathBuf {
    let named = std::env::var_os(variable).filter(|path| !path.is_empty());
    named.map_or_else(|| usual.into(), PathBuf::from)
}
