//! The command line as far as only Windows has it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use runhcs_compute::ContainerId;

use super::{commands, container_shim, vm};
use crate::deferred::Deferred;
use crate::globals::Globals;

/// What `--root` takes.
pub const ROOT_VALUE: &str = "NAME";
/// What `--root` is for.
pub const ROOT_HELP: &str = "Name of the registry key for the state of containers";

/// Options before the verb that only Windows has: none.
#[derive(Args, Clone, Debug)]
pub struct SystemArgs {}

/// How a container is created.
#[derive(Args, Clone, Debug)]
pub struct CreateArgs {
    /// The container's id.
    pub id: ContainerId,
    /// The bundle's directory.
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// File to write the container shim's pid to.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// The container whose utility VM to join.
    #[arg(long, value_name = "ID")]
    pub host: Option<ContainerId>,
    /// File or named pipe for the container shim's log.
    #[arg(long, value_name = "FILE|PIPE")]
    pub shim_log: Option<PathBuf>,
    /// File or named pipe for the VM shim's log (VM isolation).
    #[arg(long, value_name = "FILE|PIPE")]
    pub vm_log: Option<PathBuf>,
    /// Named pipe that the VM's serial console is connected to (VM isolation).
    #[arg(long, value_name = "PIPE")]
    pub vm_console: Option<String>,
}

/// What a further process is.
#[derive(Args, Clone, Debug)]
pub struct ExecArgs {
    /// Working directory in the container.
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// An environment variable; may be given again.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Give it a console.
    #[arg(long, short)]
    pub tty: bool,
    /// User: a name, or for a Linux container UID[:GID].
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
    /// File with the process as JSON.
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Return once it runs.
    #[arg(long, short)]
    pub detach: bool,
    /// File to write its shim's pid to.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// File or named pipe for its shim's log.
    #[arg(long, value_name = "FILE|PIPE")]
    pub shim_log: Option<PathBuf>,
    /// The container's id, then the program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_names = ["ID", "PROGRAM"])]
    pub operands: Vec<String>,
}

/// Where to write a configuration.
#[derive(Args, Debug)]
pub struct SpecArgs {
    /// The bundle's directory.
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Have a VM follow its pod's network.
    Sync(Deferred<SyncArgs>),
    /// Make a writable disk for a Linux container, a VHDX file with ext4.
    CreateScratch(Deferred<CreateScratchArgs>),
    /// Make ext4 on a disk. What was on it is lost.
    PrepareDisk(Deferred<PrepareDiskArgs>),
    #[command(hide = true)]
    Shim(Deferred<ShimArgs>),
    #[command(hide = true)]
    VmShim(Deferred<VmShimArgs>),
}

impl Verb {
    /// The id of the container that it is about, if it names one.
    pub fn container(&self) -> Option<ContainerId> {
        match self {
            Self::Shim(args) => Some(args.id.clone()),
            Self::VmShim(args) => Some(args.id.clone()),
            Self::Sync(args) => args.id.clone(),
            Self::CreateScratch(_) | Self::PrepareDisk(_) => None,
        }
    }

    /// Does it.
    pub fn run(self, globals: impl FnOnce() -> anyhow::Result<Globals>) -> anyhow::Result<u8> {
        match self {
            Self::Sync(args) => commands::sync::run(&globals()?, &args),
            Self::CreateScratch(args) => commands::create_scratch::run(&globals()?, &args),
            Self::PrepareDisk(args) => commands::prepare_disk::run(&globals()?, &args),
            Self::Shim(args) => container_shim::run(&globals()?, &args),
            Self::VmShim(args) => vm::shim::run(&globals()?, &args),
        }
    }
}

/// Which VM.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct SyncArgs {
    /// A container in the VM.
    pub id: Option<ContainerId>,
    /// The compute network namespace that the VM was given.
    #[arg(long, value_name = "GUID")]
    pub network: Option<String>,
}

/// Which disk to make.
#[derive(Args, Debug)]
pub struct CreateScratchArgs {
    /// The file to make; there must be none yet.
    #[arg(long, value_name = "FILE")]
    pub destpath: PathBuf,
    /// Its size in GiB; 0 is the default of 20.
    #[arg(long = "sizeGB", value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=65536))]
    pub size_gb: u32,
    /// A disk of the default size to copy; if there is none yet, one is kept there.
    #[arg(long, value_name = "FILE")]
    pub cache_path: Option<PathBuf>,
    /// Let the VM that makes the file system have virtual memory.
    #[arg(long)]
    pub use_virtual_memory: bool,
}

/// Which disk to make a file system on.
#[derive(Args, Debug)]
pub struct PrepareDiskArgs {
    /// A VHD or VHDX file, or a disk that is offline on this host (`\\.\PHYSICALDRIVE1`).
    #[arg(long, value_name = "DISK")]
    pub destpath: PathBuf,
}

/// What a container shim stands for; not for people.
#[derive(Args, Debug)]
pub struct ShimArgs {
    /// The container.
    #[arg(long)]
    pub id: ContainerId,
    /// Whether it stands for a further process, whose document comes on standard input.
    #[arg(long)]
    pub exec: bool,
    /// The inherited handle that is the process's standard input.
    #[arg(long)]
    pub stdin: Option<usize>,
    /// The inherited handle that is the process's standard output.
    #[arg(long)]
    pub stdout: Option<usize>,
    /// The inherited handle that is the process's standard error.
    #[arg(long)]
    pub stderr: Option<usize>,
}

/// What a VM shim owns; not for people.
#[derive(Args, Debug)]
pub struct VmShimArgs {
    /// The VM's host.
    #[arg(long)]
    pub id: ContainerId,
    /// Named pipe for the serial console.
    #[arg(long)]
    pub console: Option<String>,
}
