//! The Windows programs under Wine, with the stand-in for the Host Compute Service: a service of a
//! test's own, its bundles, and the proof afterwards that nothing is left.

mod bundle;
mod leaks;
mod network;
mod prefix;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hcs_sim::client::Client;
use hcs_sim::wire::CallRecord;

use crate::{Outcome, target};

pub use bundle::{LINUX, WINDOWS, WindowsBundle, arguments, hyperv, in_pod};
pub use network::namespace;

/// How long a program may run before it is taken to hang.
const LIMIT: Duration = Duration::from_secs(90);

/// One test's own world.
#[derive(Debug)]
pub struct Wine {
    directory: tempfile::TempDir,
    /// Unique in the environments of all that the test runs; the root of its state.
    pub token: String,
    service: Service,
    /// The stand-in.
    pub sim: Client,
}

/// A stand-in's process, which ends when this is dropped.
#[derive(Debug)]
pub struct Service {
    process: Child,
    /// Where it listens.
    pub address: String,
}

impl Service {
    /// Starts one.
    pub fn start() -> Self {
        // It isn't one of the test's processes: it has to outlive them.
        let mut process = prefix::wine(&program("hcs-sim.exe"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { process, address: address.trim_end().to_owned() }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Its standard input ends, and so does it.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

impl Wine {
    /// Runs a test body, then proves that it left nothing.
    pub fn run(name: &str, body: impl FnOnce(&Self)) {
        if let Some(reason) = cannot_run() {
            assert!(std::env::var_os("CI").is_none(), "CI must run all tests, but {reason}");
            eprintln!("skipped: {reason}");
            return;
        }
        prefix::ready();
        let wine = Self::new();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&wine)));
        let left = if outcome.is_ok() { leaks::find(&wine) } else { Vec::new() };
        if outcome.is_err() || !left.is_empty() {
            wine.explain(name);
        }
        leaks::clean(&wine);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert!(left.is_empty(), "{name} left:\n{}", left.join("\n"));
    }

    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("runhcs-wine-").tempdir().unwrap();
        let token = directory.path().file_name().unwrap().to_str().unwrap().to_owned();
        for name in ["tmp", "out", "boot"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        for file in ["vmlinux", "kernel", "initrd.img", "rootfs.vhd"] {
            std::fs::write(directory.path().join("boot").join(file), file).unwrap();
        }
        let boot = windows_path(&directory.path().join("boot"));
        let config = directory.path().join("config.toml");
        std::fs::write(config, format!("boot-files = '{boot}'\n")).unwrap();
        let service = Service::start();
        let (sim, _) = Client::connect(&service.address).unwrap_or_else(|error| {
            panic!("the stand-in's service said {:?}: {error}", service.address);
        });
        Self { directory, token, service, sim }
    }

    /// A path in the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A Windows program with the test's service, not yet run.
    pub fn command(&self, name: &str) -> Command {
        let mut command = prefix::wine(&program(name));
        let tmp = windows_path(&self.path("tmp"));
        command.env("HCS_SIM", &self.service.address).env("RUNHCS_E2E", &self.token);
        command.env("TMP", &tmp).env("TEMP", &tmp).stdin(Stdio::null());
        command
    }

    /// The command with the test's own options, not yet run.
    pub fn runhcs_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("runhcs.exe");
        command.args(["--root", &self.token]);
        command.args(["--config", &windows_path(&self.path("config.toml"))]);
        command.args(["--log", &windows_path(&self.path("log"))]);
        command.args(arguments);
        command
    }

    /// Runs the command to its end. Its output goes to files, for a detached container keeps
    /// pipes open.
    pub fn runhcs(&self, arguments: &[&str]) -> Outcome {
        self.finish(self.runhcs_command(arguments))
    }

    /// `create` or `run` of a bundle.
    pub fn new_container(&self, verb: &[&str], bundle: &WindowsBundle, id: &str) -> Outcome {
        let path = windows_path(bundle.path());
        let mut arguments = verb.to_vec();
        arguments.extend(["--bundle", &path, id]);
        self.runhcs(&arguments)
    }

    /// Runs a program to its end, which has to come in time.
    pub fn finish(&self, command: Command) -> Outcome {
        let (child, files) = self.spawn(command);
        self.wait(child, files)
    }

    /// Starts a program, its output going to files.
    pub fn spawn(&self, mut command: Command) -> (Child, (PathBuf, PathBuf)) {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let files =
            (self.path(&format!("out/{number}.out")), self.path(&format!("out/{number}.err")));
        command.stdout(std::fs::File::create(&files.0).unwrap());
        command.stderr(std::fs::File::create(&files.1).unwrap());
        (command.spawn().unwrap(), files)
    }

    /// Waits for a program.
    pub fn wait(&self, mut child: Child, files: (PathBuf, PathBuf)) -> Outcome {
        let end = Instant::now() + LIMIT;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                let _ = child.kill();
                panic!("it hangs: {:?}", crate::wait(child, files));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut outcome = crate::wait(child, files);
        outcome.stdout = outcome.stdout.replace("\r\n", "\n");
        outcome
    }

    /// A field of a container's state.
    #[track_caller]
    pub fn state(&self, id: &str) -> serde_json::Value {
        serde_json::from_str(&self.runhcs(&["state", id]).ok().stdout).unwrap()
    }

    /// Waits until a container has this status.
    #[track_caller]
    pub fn wait_status(&self, id: &str, status: &str) {
        let so = || self.state(id)["status"] == status;
        crate::eventually(so, || self.state(id).to_string());
    }

    /// The calls since the last time.
    pub fn calls(&self) -> Vec<CallRecord> {
        self.sim.calls().unwrap()
    }

    /// The value of a container's entry.
    pub fn stored(&self, id: &str, value: &str) -> serde_json::Value {
        let key = format!(r"HKLM\{}\{id}", self.registry_root());
        let said = leaks::registry(&["query", &key, "/v", value]);
        let text = said.split_once("REG_SZ").unwrap_or_else(|| panic!("{key} {value}: {said}")).1;
        serde_json::from_str(text.trim()).unwrap()
    }

    /// Writes a value of a container's entry, as nobody but a test does.
    pub fn overwrite(&self, id: &str, value: &str, content: &serde_json::Value) {
        let key = format!(r"HKLM\{}\{id}", self.registry_root());
        leaks::registry(&["add", &key, "/v", value, "/d", &content.to_string(), "/f"]);
        assert_eq!(self.stored(id, value), *content);
    }

    /// The key of the test's containers, in the machine's hive.
    pub fn registry_root(&self) -> String {
        format!(r"SOFTWARE\Microsoft\runhcs\{}", self.token)
    }

    /// The shims that there are: their pids and command lines.
    pub fn shims(&self) -> Vec<(u32, String)> {
        let mut processes = leaks::processes(self);
        processes.retain(|(_, line)| line.contains(" shim ") || line.contains(" vm-shim "));
        processes
    }

    /// What is left at this moment that the test's containers had, once processes that were ended
    /// had the time to be gone.
    pub fn left(&self) -> Vec<String> {
        leaks::find(self)
    }

    fn explain(&self, name: &str) {
        eprintln!("--- {name}");
        for call in self.sim.calls().unwrap_or_default() {
            let result = call.result.map_or_else(|| "hangs".to_owned(), |r| r.to_string());
            let about: String = call.about.chars().take(300).collect();
            eprintln!("{} {about}: {result} {}", call.function, call.message);
        }
        let mut files = vec![self.path("log")];
        let output = std::fs::read_dir(self.path("out")).into_iter().flatten().flatten();
        files.extend(output.map(|entry| entry.path()));
        for path in files {
            let text = std::fs::read(&path).unwrap_or_default();
            if !text.is_empty() {
                eprintln!("--- {}\n{}", path.display(), String::from_utf8_lossy(&text));
            }
        }
    }
}

/// A path of this system as Windows programs name it under Wine.
pub fn windows_path(path: &Path) -> String {
    format!("Z:{}", path.to_str().unwrap().replace('/', "\\"))
}

/// A Windows program's path as Windows names it.
pub fn program_path(name: &str) -> String {
    windows_path(&program(name))
}

fn program(name: &str) -> PathBuf {
    target().join("windows/x86_64-pc-windows-gnu/debug").join(name)
}

fn cannot_run() -> Option<String> {
    for name in ["runhcs.exe", "hcs-sim.exe", "computecore.dll"] {
        let path = program(name);
        if !path.exists() {
            return Some(format!("{} is not built; `scripts/windows` builds it", path.display()));
        }
    }
    let wine = Path::new(prefix::WINE);
    (!wine.exists()).then(|| format!("{} is not installed", wine.display()))
}
