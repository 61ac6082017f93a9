//! Taking a container's processes down into files.

use std::path::{Component, PathBuf};

use oci_spec::runtime::Spec;
use runhcs_compute::{ComputeSystem, Error, Result, Status};

use super::{CriuOptions, ExternalMount, NETWORK, STDIO, check_support, joined_network};
use crate::container::Container;
use crate::error::{Context, invalid};
use crate::plan::expect;

/// Where memory is sent to instead of into files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageServer {
    /// The address.
    pub address: String,
    /// The port.
    pub port: u16,
}

/// How a container is checkpointed.
#[derive(Clone, Debug)]
pub struct CheckpointOptions {
    /// As for restore.
    pub criu: CriuOptions,
    /// An earlier checkpoint's directory, relative to the images'; only what has changed since is
    /// written.
    pub parent: Option<PathBuf>,
    /// Write memory only, as a parent for a later checkpoint; the container goes on.
    pub pre_dump: bool,
    /// Let the container go on.
    pub leave_running: bool,
    /// Ignore TCP connections that are being made.
    pub tcp_skip_in_flight: bool,
    /// Keep files that have been removed, by linking them again.
    pub link_remap: bool,
    /// Where to send memory.
    pub page_server: Option<PageServer>,
    /// The descriptor on which CRIU tells that lazy pages can be fetched.
    pub status_fd: Option<u32>,
}

impl CheckpointOptions {
    /// Whether the container's processes have ended afterwards.
    pub fn ends_container(&self) -> bool {
        !self.leave_running && !self.pre_dump
    }
}

impl Container {
    /// Writes the container's processes into files.
    ///
    /// # Errors
    /// [`Error::InvalidStatus`] unless it runs; CRIU isn't installed, or can't do it: the error
    /// has what its log says.
    pub fn checkpoint(&self, spec: &Spec, options: &CheckpointOptions) -> Result<()> {
        let allowed = [Status::Running, Status::Paused];
        expect("checkpoint", &self.resources.id, self.status()?, &allowed)?;
        let Some(init) = self.init else { return Err(Error::NotFound(self.resources.id.clone())) };
        options.check_parent()?;
        check_support(spec, self.resources.scope.is_some())?;
        options.criu.make_directories()?;
        let verb = if options.pre_dump { "pre-dump" } else { "dump" };
        let mut command = options.criu.command(verb);
        command.arg("--tree").arg(init.pid.to_string());
        command.arg("--root").arg(format!("/proc/{}/root", init.pid));
        for mount in ExternalMount::all(spec, &self.resources.cgroups)? {
            command.arg("--external").arg(mount.argument(&mount.destination));
        }
        if let Some(path) = joined_network(spec) {
            let namespace = rustix::fs::stat(&path)
                .context(|| format!("look at the network namespace {}", path.display()))?;
            command.arg("--external").arg(format!("net[{}]:{NETWORK}", namespace.st_ino));
        }
        if let Some(group) = self.cgroup().freezer() {
            command.arg("--freeze-cgroup").arg(group);
        }
        if let Some(parent) = &options.parent {
            command.arg("--prev-images-dir").arg(parent);
        }
        for (given, option) in [
            (options.pre_dump || options.parent.is_some(), "--track-mem"),
            (options.leave_running, "--leave-running"),
            (options.tcp_skip_in_flight, "--skip-in-flight"),
            (options.link_remap, "--link-remap"),
        ] {
            if given {
                command.arg(option);
            }
        }
        if let Some(PageServer { address, port }) = &options.page_server {
            command.args(["--page-server", "--address", address, "--port"]).arg(port.to_string());
        }
        if let Some(fd) = options.status_fd {
            command.arg("--status-fd").arg(fd.to_string());
        }
        if !options.pre_dump {
            self.write_stdio(init.pid, options)?;
        }
        options.criu.check(verb, command.status())
    }

    /// Notes what stdio is, for restoring gives pipes the caller's instead.
    fn write_stdio(&self, pid: u32, options: &CheckpointOptions) -> Result<()> {
        let name = |number: u32| {
            let path = format!("/proc/{pid}/fd/{number}");
            // It may be closed.
            std::fs::read_link(path).map(|path| path.to_string_lossy().into_owned())
        };
        let names: Vec<String> = (0..3).map(|number| name(number).unwrap_or_default()).collect();
        let text = serde_json::to_vec(&names).context(|| "write down stdio".into())?;
        let path = options.criu.images.join(STDIO);
        std::fs::write(&path, text).context(|| format!("write {}", path.display()))
    }
}

impl CheckpointOptions {
    /// CRIU takes the parent relative to the images, and would find none by another path.
    fn check_parent(&self) -> Result<()> {
        let Some(parent) = &self.parent else { return Ok(()) };
        let field = "--parent-path";
        if parent.components().any(|part| part == Component::RootDir) {
            let why = format!("{} is absolute; it is relative to the images", parent.display());
            return Err(invalid(field, why));
        }
        let path = self.criu.images.join(parent);
        if !path.is_dir() {
            let why = format!("there is no directory {}, of an earlier checkpoint", path.display());
            return Err(invalid(field, why));
        }
        Ok(())
    }
}
