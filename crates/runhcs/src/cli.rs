//! The command line, compatible with runc's.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use runhcs_compute::ContainerId;
use runhcs_spec::Isolation;

mod update;

pub use update::UpdateArgs;

/// What `--version` prints after the name. Podman and containerd read the `spec:` line.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nspec: ", "1.2.0");

/// OCI container runtime with process and VM isolation.
// As with runc, the last of several equal options counts: callers put theirs after the user's.
#[derive(Debug, Parser)]
#[command(name = "runhcs", version = VERSION, disable_version_flag = true, propagate_version = false)]
#[command(args_override_self = true)]
pub struct Cli {
    /// Options before the verb.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Print the version.
    #[arg(long, short = 'v', action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// Options before the verb.
#[derive(Args, Clone, Debug)]
pub struct GlobalArgs {
    /// Directory for the state of containers; should be on a tmpfs.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// File for log messages.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Format of log messages.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Log each step.
    #[arg(long)]
    pub debug: bool,
    /// Who the containers belong to; reported by `state` and `list`.
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Have systemd make control groups; linux.cgroupsPath is slice:prefix:name then.
    #[arg(long)]
    pub systemd_cgroup: bool,
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

/// Format of log messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `time=… level=… msg=…`
    Text,
    /// An object a line.
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a container; its process waits for `start`.
    Create(CreateArgs),
    /// Start a created container's process.
    Start(IdArgs),
    /// Create a container, start it, and wait for it.
    Run(RunArgs),
    /// Print a container's state as JSON.
    State(IdArgs),
    /// List containers.
    List(ListArgs),
    /// Send a signal to a container.
    Kill(KillArgs),
    /// Delete a container and all it holds.
    Delete(DeleteArgs),
    /// Run a further process in a container.
    Exec(ExecArgs),
    /// List a container's processes.
    Ps(PsArgs),
    /// Set the size of a process's terminal.
    ResizeTty(ResizeTtyArgs),
    /// Freeze a container's processes.
    Pause(IdArgs),
    /// Thaw a container's processes.
    Resume(IdArgs),
    /// Change a container's limits.
    Update(Box<UpdateArgs>),
    /// Print what a container uses, and when its memory is exhausted.
    Events(EventsArgs),
    /// Have a VM follow its pod's network.
    Sync(SyncArgs),
    /// Write a new config.json.
    Spec(SpecArgs),
    /// Print what this runtime supports as JSON.
    Features,
    #[command(hide = true)]
    Shim(ShimArgs),
    #[command(hide = true)]
    HoldNetwork(NetworkArgs),
}

impl Verb {
    /// The id of the container that it is about, if that is well-formed.
    pub fn container(&self) -> Option<ContainerId> {
        let id = match self {
            Self::Create(args) => &args.id,
            Self::Run(args) => &args.create.id,
            Self::Start(args) | Self::State(args) | Self::Pause(args) | Self::Resume(args) => {
                &args.id
            }
            Self::Kill(args) => &args.id,
            Self::ResizeTty(args) => &args.id,
            Self::Delete(args) => &args.id,
            Self::Update(args) => &args.id,
            Self::Events(args) => &args.id,
            Self::Shim(args) => &args.id,
            Self::Exec(ExecArgs { operands, .. }) | Self::Ps(PsArgs { operands, .. }) => {
                return split_id(operands).ok().map(|(id, _)| id);
            }
            Self::Sync(args) => return args.id.clone(),
            Self::List(_) | Self::Spec(_) | Self::Features | Self::HoldNetwork(_) => return None,
        };
        Some(id.clone())
    }
}

/// A container.
#[derive(Args, Debug)]
pub struct IdArgs {
    /// The container's id.
    pub id: ContainerId,
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
}

/// How a container is run.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// As for create.
    #[command(flatten)]
    pub create: CreateArgs,
    /// Return once the container runs.
    #[arg(long, short)]
    pub detach: bool,
    /// Don't delete the container when it has ended.
    #[arg(long)]
    pub keep: bool,
    /// Accepted for runc's sake: the container's process is a child of this one anyway.
    #[arg(long)]
    pub no_subreaper: bool,
}

/// How containers are listed.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Format.
    #[arg(long, short, value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
    /// Print ids only.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Format of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Which signal for which processes.
#[derive(Args, Debug)]
pub struct KillArgs {
    /// The container's id.
    pub id: ContainerId,
    /// The signal, by name or number.
    #[arg(default_value = "TERM", allow_hyphen_values = true)]
    pub signal: KillSignal,
    /// Send it to every process of the container.
    #[arg(long, short)]
    pub all: bool,
}

/// What `kill` sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillSignal {
    /// 0: nothing, but whether something could be sent (kill(2)).
    Probe,
    /// A signal.
    Send(runhcs_compute::Signal),
}

impl std::str::FromStr for KillSignal {
    type Err = runhcs_compute::InvalidSignal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" { Ok(Self::Probe) } else { text.parse().map(Self::Send) }
    }
}

/// How a container is deleted.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// The container's id.
    pub id: ContainerId,
    /// Kill it first if it runs; succeed if there is none.
    #[arg(long, short)]
    pub force: bool,
}

/// What a further process is.
#[derive(Args, Clone, Debug)]
pub struct ExecArgs {
    /// Unix socket to send the terminal's master to.
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
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

/// How processes are listed.
#[derive(Args, Debug)]
pub struct PsArgs {
    /// Format.
    #[arg(long, short, value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
    /// The container's id, then options for ps(1); the default is -ef. With VM isolation the
    /// table's pids are the guest's.
    #[arg(required = true, trailing_var_arg = true, value_names = ["ID", "PS-OPTIONS"])]
    pub operands: Vec<String>,
}

/// A terminal's new size.
#[derive(Args, Debug)]
pub struct ResizeTtyArgs {
    /// The process, by its pid on this host; the container's init process without it.
    #[arg(long, short, value_name = "PID")]
    pub pid: Option<u32>,
    /// The container's id.
    pub id: ContainerId,
    /// Columns.
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub width: u16,
    /// Rows.
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub height: u16,
}

/// Splits off the id that comes before another program's words, which keep their own flags.
pub fn split_id(operands: &[String]) -> anyhow::Result<(ContainerId, &[String])> {
    let (id, rest) = operands.split_first().context("give the container's id")?;
    Ok((id.parse()?, rest))
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_program_keeps_its_own_flags() {
        let cli = Cli::parse_from(["runhcs", "exec", "-t", "box", "ls", "-la", "-t", "--user"]);
        let Verb::Exec(exec) = cli.verb else { panic!("{:?}", cli.verb) };
        assert!(exec.tty);
        assert_eq!(exec.operands, ["box", "ls", "-la", "-t", "--user"]);
        let cli = Cli::parse_from(["runhcs", "ps", "box", "-f", "-o", "pid"]);
        let Verb::Ps(ps) = cli.verb else { panic!("{:?}", cli.verb) };
        assert_eq!(ps.operands, ["box", "-f", "-o", "pid"]);
        assert!(Cli::try_parse_from(["runhcs", "exec", "--nope", "box", "ls"]).is_err());
    }

    #[test]
    fn the_last_of_equal_options_counts() {
        let line = ["runhcs", "--log", "a", "--log", "b", "create", "-b", "c", "-b", "d", "box"];
        let cli = Cli::parse_from(line);
        assert_eq!(cli.global.log, Some("b".into()));
        let Verb::Create(create) = cli.verb else { panic!("{:?}", cli.verb) };
        assert_eq!(create.bundle, PathBuf::from("d"));
    }

    #[test]
    fn bad_ids_and_signals_are_refused() {
        for line in [["state", "a/b"], ["state", ".."], ["start", ""]] {
            assert!(Cli::try_parse_from(["runhcs"].into_iter().chain(line)).is_err(), "{line:?}");
        }
        assert!(Cli::try_parse_from(["runhcs", "kill", "box", "NOSIG"]).is_err());
        assert_eq!("0".parse(), Ok(KillSignal::Probe));
    }
}
