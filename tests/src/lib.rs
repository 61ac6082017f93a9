//! The harness of the end-to-end tests: bundles, the real binary, and the proof after each test
//! that nothing is left.

mod bundle;
pub mod cgroups;
pub mod config;
pub mod daemons;
mod host;
mod leaks;
mod loop_device;
mod network;
pub mod podman;
mod racer;
mod runtime;
mod terminal;
mod user;
pub mod wine;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use bundle::Bundle;
pub use host::Host;
pub use loop_device::LoopDevice;
pub use network::{Names, Netns, Server};
pub use racer::Racer;
pub use terminal::{ConsoleSocket, Session, read_until, type_in};
pub use user::User;

/// How the containers of a test are isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Processes of this host.
    Process,
    /// Processes in a utility VM.
    Vm,
}

/// Runs a test body for both isolations, as two tests.
#[macro_export]
macro_rules! in_both {
    ($name:ident, $body:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn process() {
                $crate::Harness::run($crate::Isolation::Process, stringify!($name), $body);
            }

            #[test]
            fn vm() {
                $crate::Harness::run($crate::Isolation::Vm, stringify!($name), $body);
            }
        }
    };
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; 128 plus the signal's number if one ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Panics unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Panics unless the command failed as bad input fails: exit code 1 and a message of one line
    /// that holds `message`.
    #[track_caller]
    pub fn refused(self, message: &str) -> Self {
        self.failed(1, message)
    }

    /// The same of an `exec`, whose own failure has a code that programs seldom use.
    #[track_caller]
    pub fn exec_refused(self, message: &str) -> Self {
        self.failed(255, message)
    }

    #[track_caller]
    fn failed(self, code: i32, message: &str) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(message), "expected {message:?} in {self:?}");
        self
    }
}

/// One test's own world.
#[derive(Debug)]
pub struct Harness {
    /// How its containers are isolated.
    pub isolation: Isolation,
    directory: tempfile::TempDir,
    program: PathBuf,
    /// Unique in paths, control groups and environments of all that the test makes.
    pub token: String,
    environment: Vec<(String, String)>,
}

impl Harness {
    /// Runs a test body, then proves that it left nothing.
    pub fn run(isolation: Isolation, name: &str, body: impl FnOnce(&Self)) {
        Self::run_with(binary("runhcs"), isolation, name, body);
    }

    /// The same with the static program, which differs in how it begins.
    pub fn run_static(isolation: Isolation, name: &str, body: impl FnOnce(&Self)) {
        Self::run_with(static_program(), isolation, name, body);
    }

    fn run_with(program: PathBuf, isolation: Isolation, name: &str, body: impl FnOnce(&Self)) {
        if let Some(reason) = cannot_run(&program, isolation) {
            assert!(std::env::var_os("CI").is_none(), "CI must run all tests, but {reason}");
            eprintln!("skipped: {reason}");
            return;
        }
        let directory = tempfile::Builder::new().prefix("runhcs-e2e-").tempdir().unwrap();
        let token = directory.path().file_name().unwrap().to_str().unwrap().to_owned();
        let environment = Vec::new();
        let harness = Self { isolation, directory, program, token, environment };
        for name in ["tmp", "out"] {
            std::fs::create_dir(harness.path(name)).unwrap();
        }
        harness.write_config("");
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&harness)));
        let left = if outcome.is_ok() { leaks::find(&harness) } else { Vec::new() };
        if outcome.is_err() || !left.is_empty() {
            harness.explain(name);
            leaks::clean(&harness);
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert!(left.is_empty(), "{name} ({isolation:?}) left:\n{}", left.join("\n"));
    }

    /// A path in the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The directory of the state.
    pub fn root(&self) -> PathBuf {
        self.path("state")
    }

    /// The same world with a variable in the command's environment.
    pub fn with_env(&self, name: &str, value: &str) -> Vec<(String, String)> {
        let mut environment = self.environment.clone();
        environment.push((name.to_owned(), value.to_owned()));
        environment
    }

    /// Writes the configuration file; `more` goes into its `[vm]` table.
    pub fn write_config(&self, more: &str) {
        self.write_config_for(&target().join("guest-image"), more);
    }

    /// The same with another guest image.
    pub fn write_config_for(&self, image: &Path, more: &str) {
        let text = format!(
            "vm-shim = {:?}\nscratch-directory = {:?}\n[vm]\nkernel = {:?}\ninitramfs = {:?}\n{more}\n",
            binary("runhcs-vm-shim"),
            self.path("scratch"),
            image.join("vmlinux"),
            image.join("initramfs.img")
        );
        std::fs::write(self.path("config.toml"), text).unwrap();
    }

    /// The command's program.
    pub fn program(&self) -> PathBuf {
        self.program.clone()
    }

    /// The command with the test's own options, not yet run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.root()).arg("--config").arg(self.path("config.toml"));
        command.arg("--log").arg(self.path("log"));
        command.args(arguments);
        command.env("TMPDIR", self.path("tmp")).env("RUNHCS_E2E", &self.token);
        command.stdin(Stdio::null());
        command
    }

    /// Runs the command to its end. Its output goes to files, for a detached container keeps
    /// pipes open.
    pub fn runhcs(&self, arguments: &[&str]) -> Outcome {
        self.finish(self.command(arguments))
    }

    /// Runs a command to its end.
    pub fn finish(&self, command: Command) -> Outcome {
        let (child, files) = self.spawn(command);
        wait(child, files)
    }

    /// Starts a command, its output going to files.
    pub fn spawn(&self, mut command: Command) -> (Child, (PathBuf, PathBuf)) {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (stdout, stderr) =
            (self.path(&format!("out/{number}.out")), self.path(&format!("out/{number}.err")));
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        (command.spawn().unwrap(), (stdout, stderr))
    }

    /// The isolation's flag.
    pub fn flag(&self) -> [&'static str; 2] {
        match self.isolation {
            Isolation::Process => ["--isolation", "process"],
            Isolation::Vm => ["--isolation", "vm"],
        }
    }

    /// `create` or `run` of a bundle with the test's isolation.
    pub fn new_container(&self, verb: &[&str], bundle: &Bundle, id: &str) -> Outcome {
        let path = bundle.path().to_str().unwrap().to_owned();
        let mut arguments = verb.to_vec();
        arguments.extend(self.flag());
        arguments.extend(["--bundle", &path, id]);
        self.runhcs(&arguments)
    }

    /// A field of a container's state.
    #[track_caller]
    pub fn state(&self, id: &str) -> serde_json::Value {
        serde_json::from_str(&self.runhcs(&["state", id]).ok().stdout).unwrap()
    }

    /// Waits until a container has this status.
    #[track_caller]
    pub fn wait_status(&self, id: &str, status: &str) {
        eventually(|| self.state(id)["status"] == status, || format!("{:?}", self.state(id)));
    }

    fn explain(&self, name: &str) {
        eprintln!("--- logs of {name} ({:?})", self.isolation);
        let mut pending = vec![self.directory.path().to_owned()];
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                let path = entry.path();
                let named = path
                    .file_name()
                    .is_some_and(|n| ["log", "vm.log", "console.log"].iter().any(|log| n == *log));
                let wanted = named || path.extension().is_some_and(|end| end == "err");
                if kind.is_dir() && entry.file_name() != "rootfs" {
                    pending.push(path);
                } else if kind.is_file() && wanted {
                    // Not a FIFO, of a containerd's shim say, which would be waited for.
                    let text = std::fs::read(&path).unwrap_or_default();
                    eprintln!("--- {}\n{}", path.display(), String::from_utf8_lossy(&text));
                }
            }
        }
    }
}

/// Waits for a child and collects what it wrote.
pub fn wait(mut child: Child, (stdout, stderr): (PathBuf, PathBuf)) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    let status = child.wait().unwrap();
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    Outcome {
        code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap()),
        stdout: read(&stdout),
        stderr: read(&stderr),
    }
}

/// Waits until something is so, at most a quarter of a minute.
#[track_caller]
pub fn eventually(mut so: impl FnMut() -> bool, explain: impl FnOnce() -> String) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !so() {
        assert!(Instant::now() < deadline, "it didn't come to pass: {}", explain());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The build's directory.
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target")
}

/// A program of the development profile.
pub fn binary(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// The command as it is installed, without libraries, but of the development profile.
fn static_program() -> PathBuf {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    target().join(host).join("debug/runhcs")
}

fn cannot_run(program: &Path, isolation: Isolation) -> Option<String> {
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    if !root {
        return Some("containers need root".into());
    }
    let mut needed = vec![program.to_owned(), binary("runhcs-vm-shim")];
    if isolation == Isolation::Vm {
        needed.push(target().join("guest-image/initramfs.img"));
    }
    let missing = needed.into_iter().find(|path| !path.exists());
    missing.map(|path| format!("{} is not built; `make test` builds it", path.display()))
}
