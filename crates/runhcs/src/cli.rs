//! The command line, compatible with runc's. What only one system has is in `sys`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use runhcs_compute::ContainerId;

use crate::deferred::Deferred;
use crate::sys::cli;
pub use crate::sys::cli::{CreateArgs, ExecArgs, SpecArgs};

/// What `--version` prints after the name. Podman and containerd read the `spec:` line.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nspec: ", "1.3.0");

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
    #[arg(long, value_name = cli::ROOT_VALUE, help = cli::ROOT_HELP)]
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
    /// What only this system has.
    #[command(flatten)]
    pub system: cli::SystemArgs,
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
    Create(Deferred<CreateArgs>),
    /// Start a created container's process.
    Start(Deferred<IdArgs>),
    /// Create a container, start it, and wait for it.
    Run(Deferred<RunArgs>),
    /// Print a container's state as JSON.
    State(Deferred<IdArgs>),
    /// List containers.
    List(Deferred<ListArgs>),
    /// Send a signal to a container.
    Kill(Deferred<KillArgs>),
    /// Delete a container and all it holds.
    Delete(Deferred<DeleteArgs>),
    /// Run a further process in a container.
    Exec(Deferred<ExecArgs>),
    /// List a container's processes.
    Ps(Deferred<PsArgs>),
    /// Set the size of a process's terminal.
    ResizeTty(Deferred<ResizeTtyArgs>),
    /// Freeze a container's processes.
    Pause(Deferred<IdArgs>),
    /// Thaw a container's processes.
    Resume(Deferred<IdArgs>),
    /// Write a new config.json.
    Spec(Deferred<SpecArgs>),
    /// Print what this runtime supports as JSON.
    Features,
    /// What only this system has.
    #[command(flatten)]
    System(cli::Verb),
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
            Self::Exec(args) => return split_id(&args.operands).ok().map(|(id, _)| id),
            Self::Ps(args) => return split_id(&args.operands).ok().map(|(id, _)| id),
            Self::System(verb) => return verb.container(),
            Self::List(_) | Self::Spec(_) | Self::Features => return None,
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
