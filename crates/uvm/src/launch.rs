//! Launching a VM shim: the document it is given, and the verdict it gives.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runhcs_compute::{ContainerId, Error, Result};
use runhcs_spec::VmOptions;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

/// What a VM shim writes to the verdict pipe, its standard output, when its VM serves requests.
/// Anything else is the text of an error.
pub const SUCCESS: &[u8] = b"\0OK\0";

/// The most of an error that is read, in bytes.
const MAX_VERDICT: u64 = 64 << 10;
/// How long the shim may take in addition to the VM's boot.
pub(crate) const MARGIN: Duration = Duration::from_secs(10);
/// How often who waits is told that it still does.
const TICK: Duration = Duration::from_millis(100);

/// What a VM shim is launched with: the JSON document on its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The container that owns the VM.
    pub host_id: ContainerId,
    /// A private directory that exists; the shim keeps sockets, its lock and the console log in
    /// it and leaves the directory itself when it ends.
    pub dir: PathBuf,
    /// The VM's options.
    pub options: VmOptions,
    /// The network namespace whose interfaces the VM gets, by its path; without one the guest has
    /// only its loopback.
    pub network: Option<PathBuf>,
    /// Control groups that the shim enters, with all that it starts.
    pub cgroups: Vec<PathBuf>,
    /// A unix socket to which the serial console is also written.
    pub console: Option<PathBuf>,
    /// `tracing` filter for the shim's log.
    pub log_level: String,
    /// Log lines as JSON.
    pub log_json: bool,
}

/// Starts the shim and waits for its verdict. `waiting` is called every now and then meanwhile.
///
/// # Errors
/// [`Error::Timeout`] if there is none in time: the shim may still be there. Otherwise it has left
/// nothing.
pub fn launch(
    program: &Path,
    launch: &Launch,
    log: OwnedFd,
    waiting: &mut dyn FnMut(),
) -> Result<()> {
    let id = &launch.host_id;
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
        Error::failed(format!("cannot start the virtual machine of container {id}"), source)
    };
    let allowed = Duration::from_secs(launch.options.boot_timeout_seconds) + MARGIN;
    let until = Instant::now() + allowed;
    let mut shim = Started::new(program, "serve", launch, log).map_err(failed)?;
    let verdict = shim.read_until(until, waiting);
    // What was started has become a daemon's parent and ended, or failed and ended.
    let status = shim.child.wait().map_err(|error| failed(error.into()))?;
    let verdict = match verdict {
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            return Err(Error::Timeout {
                operation: format!("starting the virtual machine of container {id}"),
                seconds: allowed.as_secs(),
            });
        }
        verdict => verdict.map_err(|error| failed(error.into()))?,
    };
    if verdict == SUCCESS {
        return shim.written.map_err(|error| failed(error.into()));
    }
    if verdict.is_empty() {
        return Err(failed(format!("the VM shim ended without a word ({status})").into()));
    }
    Err(failed(String::from_utf8_lossy(&verdict).into_owned().into()))
}

/// A VM shim that was started, and told what to do.
pub(crate) struct Started {
    pub(crate) child: Child,
    /// Whether it could be told.
    pub(crate) written: std::io::Result<()>,
    answer: Option<OwnedFd>,
}

impl Started {
    /// Starts the shim `program` with a verb and a document on its standard input, its log going to
    /// `log`.
    pub(crate) fn new(
        program: &Path,
        verb: &str,
        document: &impl Serialize,
        log: OwnedFd,
    ) -> std::result::Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut child = Command::new(program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let written = stdin.map(|mut stdin| stdin.write_all(&serde_json::to_vec(document)?));
        Ok(Self { child, written: written.unwrap_or(Ok(())), answer: stdout.map(OwnedFd::from) })
    }

    /// Reads its standard output to the end. `waiting` is called every now and then meanwhile.
    pub(crate) fn read_until(
        &mut self,
        until: Instant,
        waiting: &mut dyn FnMut(),
    ) -> std::io::Result<Vec<u8>> {
        self.answer.take().map_or(Ok(Vec::new()), |answer| read_until(answer, until, waiting))
    }
}

/// Reads the pipe to its end.
fn read_until(
    pipe: OwnedFd,
    until: Instant,
    waiting: &mut dyn FnMut(),
) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::from(pipe);
    let mut verdict = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        let left = left.min(TICK);
        let timeout =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => {
                waiting();
                continue;
            }
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let length = file.read(&mut buffer)?;
        if length == 0 || verdict.len() as u64 > MAX_VERDICT {
            return Ok(verdict);
        }
        verdict.extend_from_slice(&buffer[..length]);
    }
}
