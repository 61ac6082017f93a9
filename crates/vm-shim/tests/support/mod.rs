//! Real VMs for tests, and a look at what they leave behind.

#![allow(dead_code, reason = "each test program uses a part")]

mod fake_image;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use oci_spec::runtime::{Mount, Process, Root, Spec};
use runhcs_compute::{ContainerId, ExitStatus};
use runhcs_protocol::guest::ProcessKey;
use runhcs_spec::{Accelerator, Console, Entropy, Machine, VmOptions};
use runhcs_uvm::{Attachment, Launch, LocalStdio, Vm, VmContainer};

/// The VM shim under test.
pub const SHIM: &str = env!("CARGO_BIN_EXE_runhcs-vm-shim");

/// A guest image: a directory with `vmlinux` and `initramfs.img`.
pub fn image() -> Option<PathBuf> {
    let dir = std::env::var_os("RUNHCS_GUEST_IMAGE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest-image"),
        PathBuf::from,
    );
    let missing = ["vmlinux", "initramfs.img"].into_iter().find(|file| !dir.join(file).exists());
    if let Some(file) = missing {
        eprintln!("skipped: there is no {file} in {} ($RUNHCS_GUEST_IMAGE)", dir.display());
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let qemu = |dir: PathBuf| dir.join("qemu-system-x86_64").exists();
    if !std::env::split_paths(&path).any(qemu) {
        eprintln!("skipped: there is no qemu-system-x86_64 in PATH");
        return None;
    }
    Some(dir)
}

/// A VM in the making, with a directory and an id of its own. Dropping it checks that nothing is
/// left.
pub struct Pod {
    pub dir: tempfile::TempDir,
    pub launch: Launch,
    unique: String,
}

impl Pod {
    /// A pod whose VM is going to boot `image`.
    pub fn new(image: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("test-{}-{number}-vm", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let options = VmOptions {
            kernel: image.join("vmlinux"),
            initramfs: image.join("initramfs.img"),
            kernel_args: String::new(),
            memory_mib: 256,
            max_memory_mib: None,
            preallocate_memory: false,
            huge_pages: false,
            vcpus: 1,
            max_vcpus: None,
            cpu_features: String::new(),
            accelerator: Accelerator::Auto,
            machine: Machine::Microvm,
            console: Console::Log,
            entropy: Entropy::Cpu,
            disk_bandwidth: None,
            disk_iops: None,
            qemu: "qemu-system-x86_64".into(),
            templates: None,
            boot_timeout_seconds: 60,
            uid_base: 1_879_048_192,
        };
        let launch = Launch {
            host_id: unique.parse().unwrap(),
            dir: dir.path().to_owned(),
            options,
            network: None,
            cgroups: Vec::new(),
            console: None,
            log_level: "debug,virtiofsd=info".to_owned(),
            log_json: false,
        };
        Self { dir, launch, unique }
    }

    /// Launches the shim, its log going to a file in the directory.
    pub fn try_launch(&self) -> runhcs_compute::Result<Vm> {
        let log = File::create(self.dir.path().join("shim.log")).unwrap();
        Vm::launch(Path::new(SHIM), &self.launch, log.into(), &mut || {})
    }

    /// As [`Self::try_launch`], for a VM that has to come up.
    pub fn launch(&self) -> Vm {
        self.try_launch().unwrap_or_else(|error| {
            panic!("no VM: {}\n{}", chain(&error), self.log());
        })
    }

    /// What the shim has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("shim.log")).unwrap_or_default()
    }

    /// The VM's processes, as `pid command line`.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&self.unique) || line.contains(self.dir.path().to_str().unwrap()) {
                found.push((pid, line));
            }
        }
        if let Some(pid) = self.shim_pid() {
            found.push((pid, "the shim".to_owned()));
        }
        found
    }

    /// The shim's pid, if it lives.
    pub fn shim_pid(&self) -> Option<i32> {
        let alive = Vm::at(self.dir.path()).is_alive().unwrap();
        let lock = std::fs::read_to_string(self.dir.path().join("lock")).ok()?;
        let pid: i32 = lock.trim().parse().ok()?;
        (alive && Path::new(&format!("/proc/{pid}")).exists()).then_some(pid)
    }

    /// The pid of one of the VM's processes.
    pub fn pid_of(&self, what: &str) -> i32 {
        let processes = self.processes();
        let found = processes.iter().find(|(_, line)| line.contains(what));
        found.unwrap_or_else(|| panic!("no {what} in {processes:?}")).0
    }

    /// Waits until nothing of the VM is left.
    pub fn assert_gone(&self, within: Duration) {
        let until = Instant::now() + within;
        loop {
            let processes = self.processes();
            let alive = Vm::at(self.dir.path()).is_alive().unwrap();
            if processes.is_empty() && !alive {
                break;
            }
            if Instant::now() > until {
                panic!("left: {processes:?}, lock held: {alive}\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.path().to_str().unwrap();
        let left: Vec<&str> = mounts
            .lines()
            .filter(|line| line.contains(dir) || line.contains("runhcs-share"))
            .collect();
        assert!(left.is_empty(), "mounts are left: {left:?}");
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let vm = Vm::at(self.dir.path());
        let shutdown = vm.shutdown();
        if thread::panicking() {
            eprintln!("the shim's log:\n{}", self.log());
        } else {
            shutdown.unwrap();
            self.assert_gone(Duration::from_secs(5));
        }
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// A root file system with a static busybox in it.
pub fn rootfs() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        std::fs::create_dir(root.path().join(dir)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    let busybox = busybox.expect("install busybox-static");
    std::fs::copy(busybox, root.path().join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "yes", "sleep", "true", "false", "head", "id", "touch"] {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(applet)).unwrap();
    }
    root
}

/// A process that runs `args`.
pub fn process(args: &[&str]) -> Process {
    let mut process = Process::default();
    process
        .set_args(Some(args.iter().map(|arg| (*arg).to_owned()).collect()))
        .set_env(Some(vec!["PATH=/bin".to_owned()]))
        .set_terminal(Some(false));
    process
}

/// A container that runs `args`.
pub fn spec(root: &Path, args: &[&str], mounts: Vec<Mount>) -> Spec {
    let mut spec = Spec::default();
    let mut rootfs = Root::default();
    rootfs.set_path(root.to_owned()).set_readonly(Some(false));
    let mut all = spec.mounts().clone().unwrap_or_default();
    all.retain(|mount| mount.destination() == Path::new("/proc"));
    all.extend(mounts);
    spec.set_root(Some(rootfs)).set_process(Some(process(args))).set_mounts(Some(all));
    spec
}

/// What a process did.
#[derive(Debug)]
pub struct Outcome {
    pub status: runhcs_compute::Result<ExitStatus>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// Its exit code and its output as text.
    pub fn text(&self) -> (Option<u8>, String, String) {
        (
            self.status.as_ref().ok().map(|status| status.code()),
            String::from_utf8_lossy(&self.stdout).into_owned(),
            String::from_utf8_lossy(&self.stderr).into_owned(),
        )
    }
}

/// Runs an attached process to its end, feeding it `input`.
pub fn carry(attachment: Attachment, input: Vec<u8>) -> Outcome {
    let (stdin, mut feed) = std::io::pipe().unwrap();
    let (mut from_out, stdout) = std::io::pipe().unwrap();
    let (mut from_err, stderr) = std::io::pipe().unwrap();
    // It may not want all of its input.
    let feeding = thread::spawn(move || drop(feed.write_all(&input)));
    let reader = |pipe: &mut dyn Read| {
        let mut data = Vec::new();
        pipe.read_to_end(&mut data).unwrap();
        data
    };
    let out = thread::spawn(move || reader(&mut from_out));
    let err = thread::spawn(move || reader(&mut from_err));
    let stdio =
        LocalStdio::Pipes { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
    // What it leaves behind keeps the pipes open in vain.
    let status = attachment.run(stdio).map(|ended| ended.status);
    drop((stdin, stdout, stderr));
    feeding.join().unwrap();
    Outcome { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

/// A container's init process.
pub fn init(id: &ContainerId) -> ProcessKey {
    ProcessKey { container: id.clone(), exec: None }
}

/// Creates, attaches to, and starts a container.
pub fn start(vm: &Vm, id: &str, spec: &Spec) -> (VmContainer, Attachment) {
    use runhcs_compute::ComputeSystem;

    let id: ContainerId = id.parse().unwrap();
    // The agent is in a group of its own, below which there can't be others; the command always
    // names a place at the top.
    let mut spec = spec.clone();
    let mut linux = spec.linux().clone().unwrap_or_default();
    linux.set_cgroups_path(Some(format!("/containers/{id}").into()));
    spec.set_linux(Some(linux));
    let created = vm.create_container(&id, &spec, &[], &|_, _| Ok(false));
    created.unwrap_or_else(|error| panic!("no container: {}", chain(&error)));
    let attachment = vm.attach(&init(&id)).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let container = VmContainer { vm: vm.clone(), id };
    container.start().unwrap_or_else(|error| panic!("no start: {}", chain(&error)));
    (container, attachment)
}

/// The given image with the misbehaving agent.
pub fn fake_image(image: &Path) -> tempfile::TempDir {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_agent/init.rs");
    fake_image::fake_image(image, &source)
}
