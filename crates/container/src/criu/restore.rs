//! Making a container's processes again from files.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use oci_spec::runtime::Spec;
use runhcs_compute::{Error, Result};
use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{CriuOptions, ExternalMount, NETWORK, STDIO, check_support, joined_network};
use crate::Init;
use crate::cgroups::WayIn;
use crate::channel::Channel;
use crate::clone::{Side, clone};
use crate::error::Context;
use crate::plan::Plan;

/// How a container is restored.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// As for checkpoint.
    pub criu: CriuOptions,
    /// The profile that the processes get instead of theirs, `TYPE:NAME`.
    pub lsm_profile: Option<String>,
    /// The context that mounts get instead of theirs.
    pub lsm_mount_context: Option<String>,
}

/// Where CRIU writes the pid of the restored init.
const PID_FILE: &str = "restored.pid";

impl Plan<'_> {
    /// Creates the container from the files of a checkpoint; it runs at once. Its init process
    /// becomes a child of the nearest subreaper. On failure nothing is left.
    ///
    /// # Errors
    /// CRIU isn't installed, or can't do it: the error has what its log says.
    pub fn restore(self, options: &RestoreOptions) -> Result<Init> {
        check_support(self.options.spec, self.cgroup.scope.is_some())?;
        if !options.criu.images.is_dir() {
            let what = format!("restore from {}", options.criu.images.display());
            return Err(Error::failed(what, "there is no such directory"));
        }
        self.cgroup.refuse_used()?;
        let restored = self.restore_in_steps(options);
        if restored.is_err() {
            // The error to report is the first one.
            let _ = self.cgroup.remove();
        }
        restored
    }

    fn restore_in_steps(&self, options: &RestoreOptions) -> Result<Init> {
        options.criu.make_directories()?;
        let pid_file = options.criu.work.join(PID_FILE);
        let _ = std::fs::remove_file(&pid_file);
        let way_in = self.cgroup.create(self.limits())?;
        let network = joined_network(self.options.spec).map(open).transpose()?;
        let mut command = self.restore_command(options, &pid_file, network.as_ref())?;
        let (mut channel, theirs) = Channel::pair()?;
        let target = way_in.target.as_ref().map(AsFd::as_fd);
        // SAFETY: the engine and its callers start no thread before this point.
        let side = unsafe { clone(0, target) }.context(|| "clone a process for CRIU".into())?;
        let Side::Parent { pid } = side else {
            drop(channel);
            let mut channel = theirs;
            let outcome = prepare(&way_in, self.root.path())
                .and_then(|()| options.criu.check("restore", command.status()));
            match outcome {
                Ok(()) => drop(channel.go(0)),
                Err(error) => channel.fail(&error),
            }
            crate::init::exit();
        };
        drop(theirs);
        let outcome = channel.wait();
        if let Some(pid) = Pid::from_raw(pid as i32) {
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
        outcome?;
        let what = || format!("read {}", pid_file.display());
        let text = std::fs::read_to_string(&pid_file).context(what)?;
        Init::of(text.trim().parse().context(what)?)
    }

    fn restore_command(
        &self,
        options: &RestoreOptions,
        pid_file: &Path,
        network: Option<&OwnedFd>,
    ) -> Result<Command> {
        let spec: &Spec = self.options.spec;
        let mut command = options.criu.command("restore");
        command.arg("--restore-detached").arg("--pidfile").arg(pid_file);
        command.arg("--root").arg(self.root.path());
        for mount in ExternalMount::all(spec, &self.cgroup.paths)? {
            command.arg("--external").arg(mount.argument(&mount.source));
        }
        if let Some(network) = network {
            keep_open(network)?;
            command.arg("--inherit-fd").arg(format!("fd[{}]:{NETWORK}", network.as_raw_fd()));
        }
        for (number, name) in stdio(&options.criu.images)?.iter().enumerate() {
            if name.starts_with("pipe:") {
                command.arg("--inherit-fd").arg(format!("fd[{number}]:{name}"));
            }
        }
        for (option, value) in [
            ("--lsm-profile", &options.lsm_profile),
            ("--lsm-mount-context", &options.lsm_mount_context),
        ] {
            if let Some(value) = value {
                command.args([option, value]);
            }
        }
        Ok(command)
    }
}

/// What stdio was when the checkpoint was made.
fn stdio(images: &Path) -> Result<Vec<String>> {
    let path = images.join(STDIO);
    let what = || format!("read {}", path.display());
    let text = std::fs::read(&path).context(what)?;
    serde_json::from_slice(&text).context(what)
}

fn open(path: std::path::PathBuf) -> Result<OwnedFd> {
    let file = std::fs::File::open(&path);
    Ok(file.context(|| format!("open the network namespace {}", path.display()))?.into())
}

fn keep_open(fd: &OwnedFd) -> Result<()> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())
        .context(|| "pass the network namespace on".into())
}

/// Becomes one of the container's processes as far as control groups go, for what CRIU makes is so,
/// too; and makes the root a mount, as CRIU wants it, where nobody else sees that.
fn prepare(way_in: &WayIn, root: &Path) -> Result<()> {
    way_in.entrances.enter()?;
    // SAFETY: this process has one thread, and nothing relies on the mounts that it leaves.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context(|| "unshare mounts".into())?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave).context(|| "detach from the host's mounts".into())?;
    mount_bind_recursive(root, root).context(|| format!("mount {}", root.display()))
}
