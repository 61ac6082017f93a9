//! The command line as far as only Linux has it: runc's.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use runhcs_compute::ContainerId;
use runhcs_container::RestoreOptions;
use runhcs_spec::Isolation;

pub use super::criu_args::{CheckpointArgs, RestoreArgs};
pub use super::update_args::UpdateArgs;
pub use super::vm_template_args::VmTemplateArgs;
use super::{commands, pod_network, shim};
use crate::deferred::Deferred;
use crate::globals::Globals;

/// What `--root` takes.
pub const ROOT_VALUE: &str = "DIR";
/// What `--root` is for.
pub const ROOT_HELP: &str = "Directory for the state of containers; should be on a tmpfs";

/// Options before the verb that only Linux has.
#[derive(Args, Clone, Debug)]
pub struct SystemArgs {
    /// Have systemd make control groups; linux.cgroupsPath is slice:prefix:name then.
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// CRIU's program, for checkpoint and restore.
    #[arg(long, value_name = "PROGRAM", default_value = "criu")]
    pub criu: PathBuf,
    /// Do without control groups where they can't be had: auto is yes for ordinary users.
    #[arg(long, value_enum, default_value_t = Rootless::Auto, value_name = "auto|true|false")]
    pub rootless: Rootless,
}

/// Whether containers may do without control groups that the caller may not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    /// Unless the caller is root outside of all user namespaces.
    Auto,
    /// Yes.
    True,
    /// No: what can't be had is an error.
    False,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Change a container's limits.
    Update(Box<Deferred<UpdateArgs>>),
    /// Print what a container uses, and when its memory is exhausted.
    Events(Deferred<EventsArgs>),
    /// Write a container's processes into files, by CRIU.
    Checkpoint(Box<Deferred<CheckpointArgs>>),
    /// Make a container from a checkpoint's files, by CRIU.
    Restore(Box<Deferred<RestoreArgs>>),
    /// Have a VM follow its pod's network.
    Sync(Deferred<SyncArgs>),
    /// Make a scratch disk: an ext4 file system in a sparse image.
    CreateScratch(Deferred<CreateScratchArgs>),
    /// Make an ext4 file system on a disk that exists.
    PrepareDisk(Deferred<PrepareDiskArgs>),
    /// Make, list and remove saved VMs, from which new ones are resumed.
    VmTemplate(Deferred<VmTemplateArgs>),
    #[command(hide = true)]
    Shim(Deferred<ShimArgs>),
    #[command(hide = true)]
    HoldNetwork(Deferred<NetworkArgs>),
}

impl Verb {
    /// The id of the container that it is about, if it names one.
    pub fn container(&self) -> Option<ContainerId> {
        match self {
            Self::Update(args) => Some(args.id.clone()),
            Self::Events(args) => Some(args.id.clone()),
            Self::Checkpoint(args) => Some(args.id.clone()),
            Self::Restore(args) => Some(args.id.clone()),
            Self::Shim(args) => Some(args.id.clone()),
            Self::Sync(args) => args.id.clone(),
            Self::CreateScratch(_)
            | Self::PrepareDisk(_)
            | Self::VmTemplate(_)
            | Self::HoldNetwork(_) => None,
        }
    }

    /// Does it.
    pub fn run(self, globals: impl FnOnce() -> anyhow::Result<Globals>) -> anyhow::Result<u8> {
        match self {
            Self::Update(args) => commands::update::run(&globals()?, &args),
            Self::Events(args) => commands::events::run(&globals()?, &args),
            Self::Checkpoint(args) => commands::checkpoint::run(&globals()?, &args),
            Self::Restore(args) => commands::restore::run(&globals()?, &args),
            Self::Sync(args) => commands::sync::run(&globals()?, &args),
            Self::CreateScratch(args) => commands::create_scratch::run(&args),
            Self::PrepareDisk(args) => commands::prepare_disk::run(&args),
            Self::VmTemplate(args) => commands::vm_template::run(&globals()?, &args),
            Self::Shim(args) => shim::run(&globals()?, &args),
            Self::HoldNetwork(args) => pod_network::run(&args),
        }
    }
}

/// Which VM.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct SyncArgs {
    /// A container in the VM.
    pub id: Option<ContainerId>,
    /// The network namespace that the VM was given, by the path that the configuration named.
    #[arg(long, value_name = "PATH")]
    pub network: Option<PathBuf>,
}

/// How a container is created.
#[derive(Args, Clone, Debug)]
pub struct CreateArgs {
    /// The container's id.
    pub id: ContainerId,
    /// The bundle's directory.
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Unix socket to send the terminal's master to.
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Unix socket to send the container's process to, as a descriptor.
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// File to write the container's pid to.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Don't use pivot_root, for a root on a ramdisk.
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    #[arg(long)]
    pub no_new_keyring: bool,
    /// How many descriptors after stderr to pass on.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// How strongly to isolate: process or vm.
    #[arg(long, value_name = "process|vm")]
    pub isolation: Option<Isolation>,
    /// The container whose utility VM to join.
    #[arg(long, value_name = "ID")]
    pub host: Option<ContainerId>,
    /// File for the container shim's log (VM isolation).
    #[arg(long, value_name = "FILE")]
    pub shim_log: Option<PathBuf>,
    /// File for the VM shim's log (VM isolation).
    #[arg(long, value_name = "FILE")]
    pub vm_log: Option<PathBuf>,
    /// Unix socket to copy the VM's serial console to.
    #[arg(long, value_name = "SOCKET")]
    pub vm_console: Option<PathBuf>,
    /// The checkpoint that it is restored from.
    #[arg(skip)]
    pub restore: Option<RestoreOptions>,
}

/// What a further process is.
#[derive(Args, Clone, Debug)]
pub struct ExecArgs {
    /// Unix socket to send the terminal's master to.
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Unix socket to send the process to, as a descriptor.
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Working directory in the container.
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// An environment variable; may be given again.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Give it a terminal.
    #[arg(long, short)]
    pub tty: bool,
    /// User and group ids.
    #[arg(long, short, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// A supplementary group id; may be given again.
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// File with the process as JSON.
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Return once it runs.
    #[arg(long, short)]
    pub detach: bool,
    /// File to write its pid to.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// SELinux label.
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile.
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Forbid it to gain privileges.
    #[arg(long)]
    pub no_new_privs: bool,
    /// A further capability; may be given again.
    #[arg(long, short, value_name = "CAP")]
    pub cap: Vec<String>,
    /// How many descriptors after stderr to pass on.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// A control group below the container's, for one of version 1's controllers or several; may
    /// be given again.
    #[arg(long, value_name = "[CONTROLLERS:]PATH")]
    pub cgroup: Vec<String>,
    /// Don't refuse a paused container; the process begins when it is resumed.
    #[arg(long)]
    pub ignore_paused: bool,
    /// File for the container shim's log (VM isolation).
    #[arg(long, value_name = "FILE")]
    pub shim_log: Option<PathBuf>,
    /// The container's id, then the program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_names = ["ID", "PROGRAM"])]
    pub operands: Vec<String>,
}

/// What is to be told of a container.
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// The container's id.
    pub id: ContainerId,
    /// Time between two statistics, such as 500ms, 5s or 1m.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = interval)]
    pub interval: Duration,
    /// Print the statistics once and return.
    #[arg(long)]
    pub stats: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval.is_zero() {
        return Err("the interval must be greater than 0".to_owned());
    }
    Ok(interval)
}

/// What scratch disk to make.
#[derive(Args, Debug)]
pub struct CreateScratchArgs {
    /// The image, which must not exist.
    #[arg(long, value_name = "FILE")]
    pub destpath: PathBuf,
    /// Its size in GiB; it takes as much space as is written to it.
    #[arg(long = "sizeGB", value_name = "GIB", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=16384))]
    pub size: u64,
    /// An image to copy, whatever its size; made first if it doesn't exist.
    #[arg(long, value_name = "FILE")]
    pub cache_path: Option<PathBuf>,
}

/// Which disk to prepare.
#[derive(Args, Debug)]
pub struct PrepareDiskArgs {
    /// The image or block device.
    #[arg(long, value_name = "FILE")]
    pub destpath: PathBuf,
    /// Overwrite what it holds.
    #[arg(long, short)]
    pub force: bool,
}

/// Where to write a configuration.
#[derive(Args, Debug)]
pub struct SpecArgs {
    /// The bundle's directory.
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// For an ordinary user.
    #[arg(long)]
    pub rootless: bool,
}

/// What a container shim stands for; not for people.
#[derive(Args, Debug)]
pub struct ShimArgs {
    /// The VM's directory.
    #[arg(long)]
    pub vm: PathBuf,
    /// The container that owns the VM.
    #[arg(long)]
    pub host: ContainerId,
    /// The container.
    #[arg(long)]
    pub id: ContainerId,
    /// The number of the exec'd process, if it is one.
    #[arg(long)]
    pub exec: Option<u64>,
    /// Unix socket to send the terminal's master to.
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// The network namespace to be in.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// The descriptor on which to report that it is ready.
    #[arg(long)]
    pub ready_fd: i32,
}

/// A network namespace.
#[derive(Args, Debug)]
pub struct NetworkArgs {
    /// Where it is; a new one if this isn't given.
    #[arg(long)]
    pub network: Option<PathBuf>,
}
