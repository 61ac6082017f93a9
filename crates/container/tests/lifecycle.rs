//! Real containers, as root, from a busybox root file system.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use runhcs_compute::{ComputeSystem, ContainerId, ExitStatus, Scope, Signal, Status};
use runhcs_container::{Container, CreateOptions, ExecOptions, Init, Plan, Stdio};

/// A bundle in a directory of its own.
struct Bundle {
    /// The engine is for processes of one thread; and a clone made while another test has a
    /// program file open for writing would keep that program from being executed.
    _alone: std::sync::MutexGuard<'static, ()>,
    directory: tempfile::TempDir,
    id: ContainerId,
    spec: serde_json::Value,
}

/// A container whose resources are freed when the test ends, however it ends.
struct Running {
    container: Container,
    spec: Spec,
    output: std::io::PipeReader,
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: containers without a user namespace need root");
    }
    root
}

impl Bundle {
    fn new(arguments: &[&str]) -> Self {
        static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let rootfs = directory.path().join("rootfs");
        for name in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("busybox-static is installed");
        for applet in
            ["sh", "cat", "sleep", "id", "hostname", "mount", "ls", "echo", "kill", "test", "grep"]
        {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        let name = directory.path().file_name().unwrap().to_str().unwrap().replace('.', "t");
        let spec = serde_json::json!({
            "ociVersion": "1.2.0",
            "root": { "path": rootfs },
            "hostname": "box",
            "process": {
                "cwd": "/",
                "args": arguments,
                "env": ["PATH=/bin"],
                "user": { "uid": 0, "gid": 0 },
                "capabilities": { "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"] },
                "noNewPrivileges": true
            },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                  "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
                { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"] }
            ],
            "linux": {
                "cgroupsPath": format!("/runhcs-engine-test/{name}"),
                "maskedPaths": ["/proc/interrupts", "/proc/acpi"],
                "readonlyPaths": ["/proc/sys"],
                "resources": { "pids": { "limit": 20 }, "memory": { "limit": 67108864 },
                               "devices": [{ "allow": false, "access": "rwm" }] },
                "namespaces": [
                    { "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                    { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" }
                ]
            }
        });
        Self { _alone: alone, directory, id: name.parse().unwrap(), spec }
    }

    fn rootfs(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }

    fn create(&self) -> Result<Running, String> {
        let spec: Spec = serde_json::from_value(self.spec.clone()).unwrap();
        let (output, writer) = std::io::pipe().unwrap();
        let null: OwnedFd = fs::File::open("/dev/null").unwrap().into();
        let plan = Plan::new(CreateOptions {
            id: &self.id,
            spec: &spec,
            bundle: self.directory.path(),
            runtime_dir: self.directory.path(),
            stdio: Some(Stdio {
                stdin: null,
                stdout: writer.try_clone().unwrap().into(),
                stderr: writer.into(),
            }),
            console_socket: None,
            inherited_fds: runhcs_container::InheritedFds::default(),
            no_pivot: false,
            no_new_keyring: false,
            cgroup_driver: runhcs_container::CgroupDriver::Directories,
            rootless: false,
        })
        .map_err(|error| chain(&error))?;
        let resources = plan.resources().clone();
        let stored: runhcs_container::Resources =
            serde_json::from_str(&serde_json::to_string(&resources).unwrap()).unwrap();
        assert_eq!(stored, resources);
        let init = plan.create().map_err(|error| chain(&error))?;
        Ok(Running { container: Container { resources, init: Some(init) }, spec, output })
    }

    /// Runs to the end and returns the exit status and what was written.
    fn run(&self) -> (ExitStatus, String) {
        let mut running = self.create().unwrap();
        running.container.start().unwrap();
        let status = wait(running.container.init.unwrap());
        (status, running.text())
    }
}

impl Running {
    /// What the container wrote; waits until nothing can write any more.
    fn text(&mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.container.delete().unwrap();
        let left = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().any(|hierarchy| {
            hierarchy
                .path()
                .join("runhcs-engine-test")
                .join(self.container.resources.id.as_str())
                .exists()
        });
        assert!(!left, "a cgroup of {} is left", self.container.resources.id);
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn wait(init: Init) -> ExitStatus {
    let pid = rustix::process::Pid::from_raw(init.pid as i32);
    let (_, status) =
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
    match status.exit_status() {
        Some(code) => ExitStatus::Exited(code as u8),
        None => ExitStatus::Signaled(status.terminating_signal().unwrap() as u8),
    }
}

#[test]
fn a_container_goes_through_its_life() {
    if !root() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "100"]);
    let running = bundle.create().unwrap();
    let container = &running.container;
    assert_eq!(container.status().unwrap(), Status::Created);
    container.start().unwrap();
    assert_eq!(container.status().unwrap(), Status::Running);
    assert!(container.start().is_err());
    assert_eq!(container.processes().unwrap(), [container.init.unwrap().pid]);
    container.pause().unwrap();
    assert_eq!(container.status().unwrap(), Status::Paused);
    container.resume().unwrap();
    container.signal(Signal::KILL, Scope::Init).unwrap();
    assert_eq!(wait(container.init.unwrap()), ExitStatus::Signaled(9));
    assert_eq!(container.status().unwrap(), Status::Stopped);
    assert!(container.signal(Signal::TERM, Scope::Init).is_err());
    container.delete().unwrap();
}

#[test]
fn it_sees_what_the_configuration_says() {
    if !root() {
        return;
    }
    let script = "hostname; id -u; echo pid $$; cat /proc/interrupts | grep -c x; ls -d /proc/acpi/* 2>/dev/null;\
                  echo 1 2>/dev/null > /proc/sys/kernel/hostname || echo protected; grep CapEff /proc/self/status;\
                  ls /proc/self/fd | grep -c .; echo x > /dev/null && echo null works; exit 7";
    let (status, text) = Bundle::new(&["sh", "-c", script]).run();
    assert_eq!(status, ExitStatus::Exited(7), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["box", "0", "pid 1", "0"], "{text}");
    assert!(text.contains("protected"), "{text}");
    assert!(text.contains("CapEff:\t0000000000000020"), "{text}");
    assert!(text.contains("null works"), "{text}");
    // stdin, stdout, stderr and the directory being listed.
    assert!(lines.contains(&"4"), "{text}");
}

#[test]
fn a_missing_program_is_an_error_of_create() {
    if !root() {
        return;
    }
    let error = |program: &str| Bundle::new(&[program]).create().err().unwrap();
    let missing = error("no-such-program");
    assert!(missing.contains("executable file not found in $PATH"), "{missing}");
    let missing = error("/no/such");
    assert!(missing.contains("no such file or directory"), "{missing}");
    let directory = error("/etc");
    assert!(directory.contains("permission denied"), "{directory}");
}

#[test]
fn what_cannot_be_executed_is_an_error_of_start() {
    if !root() {
        return;
    }
    let bundle = Bundle::new(&["/bin/broken"]);
    fs::write(bundle.rootfs().join("bin/broken"), "no program").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bundle.rootfs().join("bin/broken"), mode).unwrap();
    let running = bundle.create().unwrap();
    let error = running.container.start().unwrap_err();
    assert!(chain(&error).contains("exec format error"), "{}", chain(&error));
    wait(running.container.init.unwrap());
}

#[test]
fn start_notices_that_init_has_died() {
    if !root() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "100"]);
    let running = bundle.create().unwrap();
    running.container.signal(Signal::KILL, Scope::Init).unwrap();
    wait(running.container.init.unwrap());
    assert_eq!(running.container.status().unwrap(), Status::Stopped);
    assert!(running.container.start().is_err());
}

#[test]
fn a_hostile_root_cannot_redirect_mounts() {
    if !root() {
        return;
    }
    let mut bundle = Bundle::new(&["sh", "-c", "cat /vol/marker"]);
    let outside = bundle.directory.path().join("outside");
    let volume = bundle.directory.path().join("volume");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("marker"), "from the volume\n").unwrap();
    std::os::unix::fs::symlink("../../outside", bundle.rootfs().join("vol")).unwrap();
    bundle.spec["mounts"].as_array_mut().unwrap().push(serde_json::json!({
        "destination": "/vol", "type": "bind", "source": volume, "options": ["rbind", "ro"]
    }));
    let (_, text) = bundle.run();
    assert_eq!(text, "from the volume\n");
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
    assert!(bundle.rootfs().join("outside").is_dir());
}

#[test]
fn another_process_joins_it() {
    if !root() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "100"]);
    let running = bundle.create().unwrap();
    running.container.start().unwrap();
    let process: oci_spec::runtime::Process = serde_json::from_value(serde_json::json!({
        "cwd": "/tmp", "args": ["sh", "-c", "hostname; echo $PWD; cat /proc/1/cmdline; exit 3"],
        "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 }
    }))
    .unwrap();
    let run = |process: &oci_spec::runtime::Process| {
        let (mut output, writer) = std::io::pipe().unwrap();
        let null: OwnedFd = fs::File::open("/dev/null").unwrap().into();
        let stdio = Stdio {
            stdin: null,
            stdout: writer.try_clone().unwrap().into(),
            stderr: writer.into(),
        };
        let options = ExecOptions {
            process,
            stdio: Some(stdio),
            console_socket: None,
            inherited_fds: runhcs_container::InheritedFds::default(),
            cgroup: runhcs_container::ExecCgroup::Container,
            ignore_paused: false,
        };
        let init = running.container.exec(&running.spec, options).map_err(|e| chain(&e))?;
        let status = wait(init);
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        Ok::<_, String>((status, text))
    };
    let (status, text) = run(&process).unwrap();
    assert_eq!(status, ExitStatus::Exited(3));
    assert_eq!(text, "box\n/tmp\nsleep\x00100\x00");
    let mut missing = process.clone();
    missing.set_args(Some(vec!["nope".into()]));
    let error = run(&missing).unwrap_err();
    assert!(error.contains("executable file not found"), "{error}");
    running.container.signal(Signal::KILL, Scope::All).unwrap();
    wait(running.container.init.unwrap());
}

#[test]
fn hooks_run_at_their_points_and_a_failing_one_undoes_all() {
    if !root() {
        return;
    }
    let mut bundle = Bundle::new(&["sh", "-c", "exit 0"]);
    let log = bundle.directory.path().join("hooks");
    let hook = |name: &str| {
        let script = format!(
            "echo {name} $(cat | tr -d ' \\n' | grep -o '\"status\":\"[a-z]*\"') >> {}",
            log.display()
        );
        serde_json::json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }])
    };
    bundle.spec["hooks"] = serde_json::json!({
        "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
        "createContainer": hook("createContainer"),
        "poststart": hook("poststart"), "poststop": hook("poststop")
    });
    drop({
        let running = bundle.create().unwrap();
        running.container.start().unwrap();
        wait(running.container.init.unwrap());
        running
    });
    let text = fs::read_to_string(&log).unwrap();
    let names: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(
        names,
        ["prestart", "createRuntime", "createContainer", "poststart", "poststop"],
        "{text}"
    );
    assert!(text.contains("poststop \"status\":\"stopped\""), "{text}");

    bundle.spec["hooks"] = serde_json::json!({ "createRuntime": [{ "path": "/bin/false" }] });
    let error = bundle.create().err().unwrap();
    assert!(error.contains("createRuntime hook #0: /bin/false"), "{error}");
    assert!(!bundle.directory.path().join("exec.fifo").exists());
    assert!(!Path::new("/sys/fs/cgroup/pids/runhcs-engine-test").join(bundle.id.as_str()).exists());
}
