//! The options of `checkpoint` and `restore`, as runc has them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use runhcs_compute::ContainerId;
use runhcs_container::{CheckpointOptions, CriuOptions, ManageCgroups, PageServer, RestoreOptions};

/// Where the files are unless `--image-path` says otherwise.
const IMAGES: &str = "checkpoint";

/// What both have.
#[derive(Args, Debug)]
pub struct CriuArgs {
    /// Directory with the checkpoint's files; `checkpoint` by default.
    #[arg(long, value_name = "DIR")]
    pub image_path: Option<PathBuf>,
    /// Directory for CRIU's logs; that of the files by default.
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Allow established TCP connections.
    #[arg(long)]
    pub tcp_established: bool,
    /// Allow unix sockets that are connected to the outside.
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow processes of a terminal that is outside.
    #[arg(long)]
    pub shell_job: bool,
    /// Allow file locks.
    #[arg(long)]
    pub file_locks: bool,
    /// Kinds of namespaces that are made but not restored: network.
    #[arg(long, value_enum, value_name = "KIND")]
    pub empty_ns: Vec<EmptyNamespace>,
    /// Keep one copy only of memory that several checkpoints hold.
    #[arg(long)]
    pub auto_dedup: bool,
    /// Leave memory to be fetched when it is needed (userfaultfd).
    #[arg(long)]
    pub lazy_pages: bool,
    /// How CRIU treats control groups; without it restored processes are in those that a new
    /// container would have.
    #[arg(long, value_enum, value_name = "MODE")]
    pub manage_cgroups_mode: Option<Mode>,
}

/// A kind of namespace that needn't be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EmptyNamespace {
    /// The network's.
    Network,
}

/// How CRIU treats control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Restore what is set in groups that it makes.
    Soft,
    /// The same, and in those that exist.
    Full,
    /// None that it restores may exist.
    Strict,
    /// Not at all.
    Ignore,
}

impl CriuArgs {
    fn options(&self, program: &Path) -> Result<CriuOptions> {
        // CRIU works in another directory.
        let absolute = |path: &Path| {
            std::path::absolute(path).with_context(|| format!("find {}", path.display()))
        };
        let images = absolute(self.image_path.as_deref().unwrap_or(Path::new(IMAGES)))?;
        let work = self.work_path.as_deref().map(absolute).transpose()?;
        Ok(CriuOptions {
            program: program.to_owned(),
            work: work.unwrap_or_else(|| images.clone()),
            images,
            tcp_established: self.tcp_established,
            external_unix_sockets: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            empty_network: self.empty_ns.contains(&EmptyNamespace::Network),
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            manage_cgroups: match self.manage_cgroups_mode {
                Some(Mode::Soft) => ManageCgroups::Soft,
                Some(Mode::Full) => ManageCgroups::Full,
                Some(Mode::Strict) => ManageCgroups::Strict,
                Some(Mode::Ignore) | None => ManageCgroups::Ignore,
            },
        })
    }
}

/// How a container is checkpointed.
#[derive(Args, Debug)]
pub struct CheckpointArgs {
    /// The container's id.
    pub id: ContainerId,
    #[command(flatten)]
    pub criu: CriuArgs,
    /// An earlier checkpoint, relative to the files; only what has changed since is written.
    #[arg(long, value_name = "DIR")]
    pub parent_path: Option<PathBuf>,
    /// Let the container go on.
    #[arg(long)]
    pub leave_running: bool,
    /// Ignore TCP connections that are being made.
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Keep files that have been removed, by linking them again.
    #[arg(long)]
    pub link_remap: bool,
    /// Descriptor on which CRIU tells that lazy pages can be fetched.
    #[arg(long, value_name = "FD")]
    pub status_fd: Option<u32>,
    /// Where to send memory instead of into files.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = page_server)]
    pub page_server: Option<PageServer>,
    /// Write memory only, for a later checkpoint; the container goes on.
    #[arg(long)]
    pub pre_dump: bool,
}

impl CheckpointArgs {
    /// What the options say. `program` is CRIU's.
    pub fn options(&self, program: &Path) -> Result<CheckpointOptions> {
        if self.pre_dump && self.lazy_pages() {
            bail!("--pre-dump and --lazy-pages exclude each other: one writes all memory");
        }
        Ok(CheckpointOptions {
            criu: self.criu.options(program)?,
            parent: self.parent_path.clone(),
            pre_dump: self.pre_dump,
            leave_running: self.leave_running,
            tcp_skip_in_flight: self.tcp_skip_in_flight,
            link_remap: self.link_remap,
            page_server: self.page_server.clone(),
            status_fd: self.status_fd,
        })
    }

    fn lazy_pages(&self) -> bool {
        self.criu.lazy_pages
    }
}

fn page_server(text: &str) -> Result<PageServer, String> {
    let malformed = || format!("{text:?} is not ADDRESS:PORT");
    let (address, port) = text.rsplit_once(':').ok_or_else(malformed)?;
    let port = port.parse().map_err(|_| malformed())?;
    if address.is_empty() {
        return Err(malformed());
    }
    Ok(PageServer { address: address.to_owned(), port })
}

/// How a container is restored.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// The container's id.
    pub id: ContainerId,
    #[command(flatten)]
    pub criu: CriuArgs,
    /// The bundle's directory.
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Unix socket to send the terminal's master to.
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Return once the container runs.
    #[arg(long, short)]
    pub detach: bool,
    /// File to write the container's pid to.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Don't adopt the container's process: only with --detach.
    #[arg(long)]
    pub no_subreaper: bool,
    /// Accepted for runc's sake: CRIU changes the root as it was changed.
    #[arg(long)]
    pub no_pivot: bool,
    /// The profile that processes get instead of theirs.
    #[arg(long, value_name = "TYPE:NAME")]
    pub lsm_profile: Option<String>,
    /// The context that mounts get instead of theirs.
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,
}

impl RestoreArgs {
    /// What the options say. `program` is CRIU's.
    pub fn options(&self, program: &Path) -> Result<RestoreOptions> {
        Ok(RestoreOptions {
            criu: self.criu.options(program)?,
            lsm_profile: self.lsm_profile.clone(),
            lsm_mount_context: self.lsm_mount_context.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_servers_have_an_address_and_a_port() {
        let expected = PageServer { address: "::1".into(), port: 27 };
        assert_eq!(page_server("::1:27"), Ok(expected));
        for text in ["", ":1", "a", "a:", "a:99999"] {
            assert!(page_server(text).is_err(), "{text}");
        }
    }
}
