//! The configuration file's content on Linux.

use std::path::{Path, PathBuf};

use anyhow::bail;
use runhcs_spec::{Isolation, VmDefaults};
use serde::Deserialize;

use crate::config::load;

/// Where the configuration is if nothing else is said. It may be missing there.
const DEFAULT: &str = "/etc/runhcs/config.toml";
/// On a disk, unlike the state.
const DEFAULT_SCRATCH: &str = "/var/lib/runhcs/scratch";

/// The configuration file's content; everything has a default.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    /// Isolation of containers that don't ask for one.
    pub isolation: Option<Isolation>,
    /// `--owner`'s default.
    pub owner: Option<String>,
    /// The VM shim; by default beside this program.
    pub vm_shim: Option<PathBuf>,
    /// Where scratch disks are that are made for a container.
    pub scratch_directory: Option<PathBuf>,
    /// Defaults of utility VMs.
    pub vm: VmDefaults,
}

impl Config {
    /// Reads the file that was named, or the default one if it exists.
    pub fn load(named: Option<&Path>) -> anyhow::Result<Self> {
        load(named, Path::new(DEFAULT))
    }

    /// Where scratch disks are that are made for a container.
    pub fn scratch_directory(&self) -> PathBuf {
        self.scratch_directory.clone().unwrap_or_else(|| DEFAULT_SCRATCH.into())
    }

    /// The VM shim's program.
    pub fn vm_shim(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.vm_shim {
            return Ok(path.clone());
        }
        let own = super::own_program::path()?;
        let beside = own.with_file_name("runhcs-vm-shim");
        if !beside.exists() {
            bail!(
                "there is no VM shim at {}; install it there or set `vm-shim` in {DEFAULT}",
                beside.display()
            );
        }
        Ok(beside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn a_full_file() {
        let config = parse::<Config>(
            "isolation = \"vm\"\nowner = \"me\"\nvm-shim = \"/x\"\n[vm]\nmemory-mib = 512\nvcpus = 2\n",
        )
        .unwrap();
        assert_eq!(config.isolation, Some(Isolation::Vm));
        assert_eq!(config.vm.memory_mib, Some(512));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let error = parse::<Config>("owner = \"me\"\nisolaton = \"vm\"\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("isolaton"), "{error}");
        let error = parse::<Config>("[vm]\nvcpus = \"two\"\n").unwrap_err().to_string();
        assert!(error.contains("line 2, `vcpus = \"two\"`: "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
