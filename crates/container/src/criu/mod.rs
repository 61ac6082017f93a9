//! Checkpoint and restore by CRIU (criu(8)), by its command line.
//!
//! CRIU freezes the container's processes and writes them into files, from which it makes them
//! again. What comes from outside of the container it is told by name: bind mounts, control groups,
//! pipes of stdio and joined network namespaces.

mod dump;
mod restore;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use oci_spec::runtime::Spec;
use runhcs_compute::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::cgroups::CgroupPaths;
use crate::error::{Context, invalid};
use crate::rootfs::mounts::{Kind, PlannedMount};

pub use dump::{CheckpointOptions, PageServer};
pub use restore::RestoreOptions;

/// The file beside CRIU's in which is what the processes' stdio was.
const STDIO: &str = "descriptors.json";

/// How CRIU treats control groups (criu(8), `--manage-cgroups`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ManageCgroups {
    /// Restores what is set in groups that it makes.
    Soft,
    /// The same, and in those that exist.
    Full,
    /// None that it restores may exist.
    Strict,
    /// Not at all: restored processes are in the groups that the runtime makes.
    Ignore,
}

impl ManageCgroups {
    fn name(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::Full => "full",
            Self::Strict => "strict",
            Self::Ignore => "ignore",
        }
    }
}

/// What checkpoint and restore have in common.
#[derive(Clone, Debug)]
pub struct CriuOptions {
    /// The program; it is looked for in `PATH`.
    pub program: PathBuf,
    /// The directory with CRIU's files of the container.
    pub images: PathBuf,
    /// The directory for logs.
    pub work: PathBuf,
    /// Allow established TCP connections.
    pub tcp_established: bool,
    /// Allow unix sockets that are connected to the outside.
    pub external_unix_sockets: bool,
    /// Allow processes of a terminal that is outside.
    pub shell_job: bool,
    /// Allow file locks.
    pub file_locks: bool,
    /// Don't keep what is in a network namespace.
    pub empty_network: bool,
    /// Keep one copy only of memory that several checkpoints hold.
    pub auto_dedup: bool,
    /// Leave memory to be fetched when it is needed.
    pub lazy_pages: bool,
    /// How to treat control groups.
    pub manage_cgroups: ManageCgroups,
}

impl CriuOptions {
    /// The command with what is common.
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args([verb, "--no-default-config", "-v4", "--log-file"]).arg(log_name(verb));
        command.arg("--images-dir").arg(&self.images).arg("--work-dir").arg(&self.work);
        // With `=`, for the mode is optional.
        command.arg(format!("--manage-cgroups={}", self.manage_cgroups.name()));
        for (given, option) in [
            (self.tcp_established, "--tcp-established"),
            (self.external_unix_sockets, "--ext-unix-sk"),
            (self.shell_job, "--shell-job"),
            (self.file_locks, "--file-locks"),
            (self.auto_dedup, "--auto-dedup"),
            (self.lazy_pages, "--lazy-pages"),
        ] {
            if given {
                command.arg(option);
            }
        }
        if self.empty_network {
            command.args(["--empty-ns", "net"]);
        }
        command
    }

    /// Makes the directories, private to the caller: what is in them is the container's memory.
    fn make_directories(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        for path in [&self.images, &self.work] {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.context(|| format!("make {}", path.display()))?;
        }
        Ok(())
    }

    /// What went wrong, with what the log says of it.
    fn check(&self, verb: &str, outcome: io::Result<ExitStatus>) -> Result<()> {
        let what = || format!("{} {verb}", self.program.display());
        let why = match outcome {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => status.to_string(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let why = "it is not installed, and checkpoint and restore are its work; install \
                           it (Debian: package criu)";
                return Err(Error::failed(what(), why));
            }
            Err(error) => error.to_string(),
        };
        let log = self.work.join(log_name(verb));
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        // What CRIU can do without is told as errors, too; the last two are those that count.
        let errors: Vec<&str> = text.lines().filter(|line| line.contains("Error")).collect();
        let last = errors[errors.len().saturating_sub(2)..].join("; ");
        Err(Error::failed(what(), format!("{why}; {} says: {last}", log.display())))
    }
}

fn log_name(verb: &str) -> String {
    format!("{}.log", if verb == "restore" { "restore" } else { "dump" })
}

/// A mount that isn't the container's own: its destination, and where its files are on this host.
#[derive(Debug, PartialEq)]
struct ExternalMount {
    destination: PathBuf,
    source: PathBuf,
}

impl ExternalMount {
    /// Every one that the configuration makes.
    fn all(spec: &Spec, cgroups: &CgroupPaths) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        let root = spec.root().as_ref().ok_or_else(|| invalid("root", "is missing"))?.path();
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            let planned = PlannedMount::new(index, mount, root)?;
            let destination = planned.destination.to_path_buf();
            match (&planned.kind, cgroups) {
                (Kind::Bind { source, .. }, _) => {
                    found.push(Self { destination, source: (*source).to_owned() });
                }
                // Version 2 CRIU knows as a file system.
                (Kind::Cgroup, CgroupPaths::V1(paths)) => {
                    found.extend(paths.iter().filter(|(name, _)| !name.is_empty()).map(
                        |(name, path)| Self {
                            destination: destination.join(name),
                            source: path.clone(),
                        },
                    ));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// As CRIU's `--external`: the mount, and the name by which it is known or the place that it
    /// is restored from.
    fn argument(&self, name: &Path) -> OsString {
        join(&[
            OsStr::new("mnt["),
            self.destination.as_os_str(),
            OsStr::new("]:"),
            name.as_os_str(),
        ])
    }
}

fn join(parts: &[&OsStr]) -> OsString {
    parts.iter().fold(OsString::new(), |mut text, part| {
        text.push(part);
        text
    })
}

/// The network namespace that the configuration joins, which stays outside.
fn joined_network(spec: &Spec) -> Option<PathBuf> {
    let linux = spec.linux().as_ref()?;
    let mut namespaces = linux.namespaces().iter().flatten();
    let network = namespaces
        .find(|namespace| namespace.typ() == oci_spec::runtime::LinuxNamespaceType::Network)?;
    network.path().clone()
}

/// The name by which a joined network namespace is known in CRIU's files.
const NETWORK: &str = "extRootNetNS";

/// What CRIU can't be asked by its command line.
fn check_support(spec: &Spec, scope: bool) -> Result<()> {
    let terminal = spec.process().as_ref().is_some_and(|p| p.terminal() == Some(true));
    let why = if terminal {
        "a terminal can't be taken along: run the container without one (process.terminal)"
    } else if scope {
        "containers in systemd's scopes can't be taken along; use control groups without \
         --systemd-cgroup"
    } else {
        return Ok(());
    };
    Err(Error::Unsupported(why.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_from_outside_are_named() {
        let spec: Spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.2.0",
            "root": { "path": "/bundle/rootfs" },
            "mounts": [
                { "destination": "/proc", "type": "proc" },
                { "destination": "/data", "source": "/srv/data", "options": ["rbind"] },
                { "destination": "/sys/fs/cgroup", "type": "cgroup" }
            ]
        }))
        .unwrap();
        let paths = CgroupPaths::V1(vec![
            ("cpu,cpuacct".into(), "/c/cpu/box".into()),
            (String::new(), "/c/unified/box".into()),
        ]);
        let found = ExternalMount::all(&spec, &paths).unwrap();
        let arguments: Vec<_> = found.iter().map(|mount| mount.argument(&mount.source)).collect();
        assert_eq!(
            arguments,
            ["mnt[/data]:/srv/data", "mnt[/sys/fs/cgroup/cpu,cpuacct]:/c/cpu/box"]
        );
        let version_2 = ExternalMount::all(&spec, &CgroupPaths::V2("/c/box".into())).unwrap();
        assert_eq!(version_2.len(), 1);
    }
}
