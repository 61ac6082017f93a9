//! The virtiofs daemon: serves the share tree to the guest, from a process of its own that sees
//! nothing else.
//!
//! Files keep the owners, modes and attributes they have on the host: the guest's users are the
//! host's. So the daemon has the capabilities that root has over files, and no others; and it can
//! make the system calls that serving files takes, and no others.

mod filter;

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;
use vhost::vhost_user::{Error as VhostError, Listener};
use vhost_user_backend::{Error as DaemonError, VhostUserDaemon};
use virtiofsd::passthrough::{CachePolicy, Config, PassthroughFs};
use virtiofsd::vhost_user::VhostUserFsBackendBuilder;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::inherit::Inherit;
use crate::sockets::waiting_connection;
use crate::{capabilities, daemon, log, share};

/// How long the guest may use what it knows of a file before it asks again. What the host changes
/// in a volume is seen within this time.
const CACHE: Duration = Duration::from_secs(1);

/// How many files the guest may know at a time, if the host allows.
const OPEN_FILES: u64 = 1_000_000;
/// Descriptors that the guest can't use up, in addition to one per region of guest memory.
const RESERVED_DESCRIPTORS: u64 = 1024;

/// How many files the guest has to be able to know at a time. Without any it would find its share
/// broken.
const LEAST_FILES: u64 = 256;

/// What root may do with files it doesn't own.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// The arguments of the daemon's process.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// A socket that listens and has a connection waiting.
    #[arg(long)]
    listener: RawFd,
    /// The tree to serve.
    #[arg(long)]
    share: PathBuf,
    #[command(flatten)]
    log: log::Options,
}

/// Starts the daemon. `lock` is held by it until it ends.
///
/// # Errors
/// If its process can't be started.
pub fn spawn(
    share: &Path,
    private_dir: &Path,
    log: &log::Options,
    lock: Inherit<'_>,
) -> anyhow::Result<(Child, UnixStream)> {
    let (listener, qemu) = waiting_connection(&private_dir.join("virtiofs"))?;
    let listener_fd = Inherit::new(&listener)?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("runhcs-vm-shim")
        .arg("virtiofs")
        .arg(format!("--listener={}", listener.as_raw_fd()))
        .arg("--share")
        .arg(share)
        .args(log.arguments())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let child = daemon::die_with_us(&mut command)
        .and_then(|()| daemon::spawn_in_pid_namespace(&mut command))
        .context("cannot start the virtiofs daemon")?;
    drop((listener_fd, lock));
    Ok((child, qemu))
}

/// The daemon's process. Returns when QEMU hangs up.
pub fn run(options: &Options) -> anyhow::Result<()> {
    log::init(&options.log)?;
    ensure!(options.listener > 2, "descriptor {} is not a listener", options.listener);
    // SAFETY: nothing in this process owns a descriptor yet but standard input, output and error.
    let listener = unsafe { OwnedFd::from_raw_fd(options.listener) };
    let listener = UnixListener::from(listener);
    // A mount of its own, from which no `..` leads to the rest of the host's /proc.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let proc_fds = open_tree(CWD, "/proc/self/fd", flags).context("cannot open /proc/self/fd")?;

    let descriptors = raise_open_files().context("cannot raise the limit of open files")?;
    let guest_fd_limit = descriptors
        .checked_sub(RESERVED_DESCRIPTORS)
        .filter(|limit| *limit >= LEAST_FILES)
        .with_context(|| {
            let least = RESERVED_DESCRIPTORS + LEAST_FILES;
            format!("the limit of {descriptors} open files (RLIMIT_NOFILE) is below {least}")
        })?;

    share::confine_to(&options.share)?;
    // The guest says what mode a new file gets.
    rustix::process::umask(rustix::fs::Mode::empty());
    capabilities::keep(CAPABILITIES).context("cannot drop capabilities")?;

    let fs = PassthroughFs::new(Config {
        entry_timeout: CACHE,
        attr_timeout: CACHE,
        cache_policy: CachePolicy::Auto,
        root_dir: "/".to_owned(),
        xattr: true,
        proc_sfd_rawfd: Some(File::from(proc_fds)),
        // Each mount gets a device number of its own in the guest, as it has on the host.
        announce_submounts: true,
        guest_fd_limit,
        ..Config::default()
    })
    .context("cannot open the share tree")?;
    filter::load()?;
    let backend = VhostUserFsBackendBuilder::default()
        .build(fs)
        .map_err(|error| anyhow::anyhow!("cannot make the virtiofs device: {error}"))?;
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("virtiofs".to_owned(), Arc::new(backend), memory)
        .map_err(|error| anyhow::anyhow!("cannot make the virtiofs device: {error}"))?;
    let mut listener = Listener::from(listener);
    daemon
        .start(&mut listener)
        .map_err(|error| anyhow::anyhow!("cannot serve the virtiofs device: {error}"))?;
    match daemon.wait() {
        Ok(())
        | Err(DaemonError::HandleRequest(VhostError::Disconnected | VhostError::PartialMessage)) => {
            Ok(())
        }
        Err(error) => Err(anyhow::anyhow!("the virtiofs device failed: {error}")),
    }
}

/// Each file that the guest knows is a descriptor. Returns how many there can be.
fn raise_open_files() -> rustix::io::Result<u64> {
    let before = getrlimit(Resource::Nofile);
    let wanted = before.maximum.map_or(OPEN_FILES, |maximum| maximum.max(OPEN_FILES));
    let set = |limit| {
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) })
            .map(|()| limit)
    };
    // Without the right to go beyond the hard limit, that has to do.
    set(wanted).or_else(|error| before.maximum.map_or(Err(error), set))
}
