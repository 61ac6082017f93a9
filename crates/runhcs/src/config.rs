//! The configuration file, `/etc/runhcs/config.toml` unless `--config` names another.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use runhcs_spec::{Isolation, VmDefaults};
use serde::Deserialize;

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
        let path = named.unwrap_or(Path::new(DEFAULT));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                Ok(Self::default())
            }
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        // toml's messages span several lines to point at the place; errors here are one line.
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            anyhow::anyhow!("line {line}: {}", error.message().replace('\n', "; "))
        })
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
        let own = crate::own_program::path()?;
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

    #[test]
    fn a_full_file() {
        let config = Config::parse(
            "isolation = \"vm\"\nowner = \"me\"\nvm-shim = \"/x\"\n[vm]\nmemory-mib = 512\nvcpus = 2\n",
        )
        .unwrap();
        assert_eq!(config.isolation, Some(Isolation::Vm));
        assert_eq!(config.vm.memory_mib, Some(512));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let error = Config::parse("owner = \"me\"\nisolaton = \"vm\"\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("isolaton"), "{error}");
        let error = Config::parse("[vm]\nvcpus = \"two\"\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
