//! What dies of a utility VM, and what hangs: its containers are seen as stopped, whoever asks learns
//! why, and everything can be deleted.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use runhcs_tests::config::run_limited;
use runhcs_tests::{Bundle, Harness, Isolation, Outcome, eventually, wait};
use serde_json::json;

fn vm(name: &str, body: impl FnOnce(&Harness)) {
    Harness::run(Isolation::Vm, name, body);
}

fn signal(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

/// The one process of this test's own VM whose command line holds `text`.
fn process(h: &Harness, text: &str) -> String {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| {
            let bytes = std::fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let command = read("cmdline");
        let ours = read("environ").contains(&h.token) || command.contains(&h.token);
        if ours && command.contains(text) {
            pids.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    assert_eq!(pids.len(), 1, "{text}: {pids:?}");
    pids.remove(0)
}

/// A pod in a VM: its sandbox, whose id is the test's token, and one container that `run` waits
/// for.
struct Pod<'a> {
    h: &'a Harness,
    /// Where the sandbox's standard error goes.
    sandbox_errors: PathBuf,
    member: (Child, (PathBuf, PathBuf)),
}

impl<'a> Pod<'a> {
    fn new(h: &'a Harness, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let id = h.token.as_str();
        let sandbox = Bundle::new(h, "sandbox", &["sleep", "1000"]).in_pod("sandbox", id);
        let sandbox = sandbox.edit(change);
        let path = sandbox.path().to_str().unwrap();
        let run = ["run", "--detach", "--isolation", "vm", "--bundle", path, id];
        let (run, files) = h.spawn(h.command(&run));
        let sandbox_errors = files.1.clone();
        wait(run, files).ok();
        let program = ["sh", "-c", "echo ready; sleep 1000"];
        let member = Bundle::new(h, "member", &program).in_pod("container", id);
        let path = member.path().to_str().unwrap().to_owned();
        let member = h.spawn(h.command(&["run", "--keep", "--bundle", &path, "member"]));
        until_ready(&member.1.0);
        Self { h, sandbox_errors, member }
    }

    /// The VM ends for this reason, its console saying this last: whoever waits for a process in it
    /// learns why, everybody has stopped by then, everybody else learns why, and all can be deleted.
    fn expect_lost(self, reason: &str, console: &str) {
        let (h, id) = (self.h, self.h.token.as_str());
        // What the container shim ended with is what `run`, and so conmon and containerd, hear.
        let Outcome { code, stderr, .. } = wait(self.member.0, self.member.1);
        for container in [id, "member"] {
            assert_eq!(h.state(container)["status"], "stopped", "{container}");
        }
        assert_eq!(code, 137, "{stderr}");
        assert!(stderr.contains(reason) && stderr.contains("console"), "{stderr}");
        // And the log has it: what died, and what the console said last.
        let log = std::fs::read_to_string(h.path("log")).unwrap();
        let told = "container member was lost with its virtual machine: ";
        let line = log.lines().find(|line| line.contains("level=error") && line.contains(told));
        let line = line.unwrap_or_else(|| panic!("{told} in {log}"));
        assert!(line.contains(reason) && line.contains(console), "{line}");
        for container in [id, "member"] {
            for verb in [&["exec", container, "true"][..], &["kill", container], &["ps", container]]
            {
                let refused = h.runhcs(verb);
                // An `exec`'s own failure has a code that programs seldom use.
                let code = if verb[0] == "exec" { 255 } else { 1 };
                assert_eq!(refused.code, code, "{refused:?}");
                assert!(refused.stderr.contains(reason), "{verb:?}: {reason} in {refused:?}");
            }
        }
        h.runhcs(&["delete", "member"]).ok();
        h.runhcs(&["delete", id]).ok();
    }
}

/// Waits until a process whose output goes to this file has said that it is ready.
fn until_ready(output: &Path) {
    let said = || std::fs::read_to_string(output).unwrap_or_default();
    eventually(|| said() == "ready\n", || format!("{} is {:?}", output.display(), said()));
}

/// What every guest's console says, with the options that these tests give it.
const BOOT_LINE: &str = "PCI: Fatal: No config space access function found";
/// The end of what Linux says when it gives up.
const PANICS_END: &str = "Kernel Offset: disabled";

fn unchanged(_: &mut serde_json::Value) {}

/// Runs with all capabilities, among the guest's own processes.
fn privileged(config: &mut serde_json::Value) {
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = json!(["CAP_SYS_PTRACE", "CAP_SYS_ADMIN"]);
    }
    let linux = config["linux"].as_object_mut().unwrap();
    linux.remove("maskedPaths");
    linux.remove("readonlyPaths");
    linux["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
}

/// What ran in a VM that somebody shuts down ends as if killed; nobody has to be told of a loss.
#[test]
fn a_vm_that_is_shut_down_on_purpose() {
    vm("shut down", |h| {
        let id = h.token.as_str();
        let pod = Pod::new(h, unchanged);
        let further = h.spawn(h.command(&["exec", id, "sh", "-c", "echo ready; sleep 1000"]));
        until_ready(&further.1.0);
        h.runhcs(&["delete", "--force", id]).ok();
        for (child, files) in [pod.member, further] {
            let ended = wait(child, files);
            assert_eq!((ended.code, ended.stderr.as_str()), (137, ""), "{ended:?}");
        }
        assert_eq!(std::fs::read_to_string(pod.sandbox_errors).unwrap(), "");
        h.runhcs(&["delete", "member"]).ok();
        let log = std::fs::read_to_string(h.path("log")).unwrap();
        assert!(!log.contains("level=error"), "{log}");
    });
}

#[test]
fn a_killed_qemu() {
    vm("killed QEMU", |h| {
        let pod = Pod::new(h, unchanged);
        let qemu = process(h, "guest=");
        signal("-9", &qemu);
        pod.expect_lost("QEMU was killed by signal 9", BOOT_LINE);
    });
}

/// Nobody sees a container as stopped before the VM's log says what died: this is asked all along,
/// so that some requests are under way when it happens.
#[test]
fn the_log_has_it_before_the_state() {
    vm("log before state", |h| {
        let id = h.token.as_str();
        let pod = Pod::new(h, unchanged);
        let log = h.root().join(id).join("vm.log");
        let qemu = process(h, "guest=");
        std::thread::scope(|scope| {
            let ask = |container| {
                while h.state(container)["status"] != "stopped" {}
                std::fs::read_to_string(&log).unwrap()
            };
            let asking: Vec<_> =
                [id, "member", id].map(|container| scope.spawn(move || ask(container))).into();
            eventually(|| h.runhcs(&["exec", "member", "true"]).code == 0, || "no exec".into());
            signal("-9", &qemu);
            for log in asking.into_iter().map(|thread| thread.join().unwrap()) {
                let reason = "QEMU was killed by signal 9";
                let line = |line: &&str| line.contains("ERROR") && line.contains(reason);
                let line = log.lines().find(line).unwrap_or_else(|| panic!("{reason} in {log}"));
                assert!(line.contains("the virtual machine is lost"), "{line}");
                assert!(log.contains(BOOT_LINE), "{log}");
            }
        });
        pod.expect_lost("QEMU was killed by signal 9", BOOT_LINE);
    });
}

#[test]
fn a_killed_virtiofs_daemon() {
    vm("killed virtiofs daemon", |h| {
        let pod = Pod::new(h, unchanged);
        let daemon = process(h, "virtiofs --listen");
        signal("-9", &daemon);
        pod.expect_lost("the virtiofs daemon was killed by signal 9", BOOT_LINE);
    });
}

#[test]
fn a_killed_vm_shim() {
    vm("killed VM shim", |h| {
        let pod = Pod::new(h, unchanged);
        let shim = process(h, "vm-shim serve");
        signal("-9", &shim);
        pod.expect_lost("the VM shim was killed", BOOT_LINE);
    });
}

#[test]
fn a_panic_of_the_guests_kernel() {
    vm("panic", |h| {
        let pod = Pod::new(h, privileged);
        // Whether it is answered is not the question.
        h.runhcs(&["exec", &h.token, "sh", "-c", "echo c > /proc/sysrq-trigger"]);
        pod.expect_lost("Kernel panic - not syncing: sysrq triggered crash", PANICS_END);
    });
}

#[test]
fn a_killed_agent() {
    vm("killed agent", |h| {
        let pod = Pod::new(h, privileged);
        // No signal reaches the guest's first process; so its program is overwritten.
        let script = "text=$(grep -m 1 r-xp /proc/1/maps | cut -d - -f 1)
            dd if=/dev/zero of=/proc/1/mem bs=4096 count=256 conv=notrunc seek=$((0x$text / 4096))";
        h.runhcs(&["exec", &h.token, "sh", "-c", script]);
        pod.expect_lost("Attempted to kill init", PANICS_END);
    });
}

/// Without a limit of its own, a container can use what its VM has. The guest's kernel ends who uses
/// most, and nobody else.
#[test]
fn a_guest_whose_memory_is_exhausted() {
    vm("exhausted memory", |h| {
        let id = h.token.as_str();
        let pod = Pod::new(h, unchanged);
        let events = [id, "member"]
            .map(|container| h.spawn(h.command(&["events", "--interval", "200ms", container])));
        let count = |which: usize, kind: &str| {
            let text = std::fs::read_to_string(&events[which].1.0).unwrap();
            let kind = format!("\"type\":\"{kind}\"");
            text.lines().filter(|line| line.contains(&kind)).count()
        };
        for which in [0, 1] {
            eventually(|| count(which, "stats") > 0, || "events are silent".into());
        }
        let script = "a=0123456789abcdef; while :; do a=$a$a; done";
        // A further process of a container: it is killed, and the container goes on.
        let hog = h.runhcs(&["exec", "member", "sh", "-c", script]);
        assert_eq!(hog.code, 137, "{hog:?}");
        eventually(|| count(1, "oom") > 0, || "the container's events don't tell of it".into());
        // The first process of one: it ends as if killed, as does its container.
        let bundle = Bundle::new(h, "hog", &["sh", "-c", script]).in_pod("container", id);
        let path = bundle.path().to_str().unwrap();
        let hog = h.runhcs(&["run", "--keep", "--bundle", path, "hog"]);
        assert_eq!(hog.code, 137, "{hog:?}");
        assert_eq!(h.state("hog")["status"], "stopped");
        // The console has whom the kernel chose.
        let console = std::fs::read_to_string(h.root().join(id).join("vm/console.log")).unwrap();
        let killed = |line: &&str| line.contains("Out of memory: Killed process");
        let killed: Vec<&str> = console.lines().filter(killed).collect();
        assert!(killed.len() == 2 && killed.iter().all(|line| line.contains("(sh)")), "{console}");
        // And the log whose they were.
        for container in ["member", "hog"] {
            expect_oom(h, id, container, "the virtual machine's memory is used up");
        }
        // The others live on, and nothing happened to them.
        for container in [id, "member"] {
            assert_eq!(h.runhcs(&["exec", container, "echo", "alive"]).ok().stdout, "alive\n");
        }
        assert_eq!(count(0, "oom"), 0);
        h.runhcs(&["kill", "member", "KILL"]).ok();
        assert_eq!(wait(pod.member.0, pod.member.1).code, 137);
        for container in ["hog", "member", id] {
            h.runhcs(&["delete", "--force", container]).ok();
        }
        for (child, files) in events {
            assert_eq!(wait(child, files).code, 0);
        }
    });
}

#[test]
fn a_container_whose_limit_of_memory_is_exhausted() {
    vm("exhausted limit", |h| {
        run_limited(h, &json!({ "memory": { "limit": 32 << 20, "swap": 32 << 20 } }));
        // It keeps what it may have to print in memory.
        let hog = h.runhcs(&["exec", "box", "tail", "-c", "100000000", "/dev/zero"]);
        assert_ne!(hog.code, 0, "{hog:?}");
        expect_oom(h, "box", "box", "the container's limit of memory is used up");
        h.runhcs(&["delete", "--force", "box"]).ok();
    });
}

/// The log of the VM that `host` owns tells once of a process of a container that was killed.
fn expect_oom(h: &Harness, host: &str, container: &str, why: &str) {
    let path = h.root().join(host).join("vm.log");
    let log = || std::fs::read_to_string(&path).unwrap();
    let message = format!("the kernel has killed a process of the container: {why}");
    let count = || {
        let of_container = format!("container={container} ");
        let told = |line: &&str| line.contains("WARN") && line.contains(&of_container);
        log().lines().filter(told).filter(|line| line.contains(&message)).count()
    };
    eventually(|| count() == 1, || format!("{container}, {message:?}: {}", log()));
}

#[test]
fn too_few_open_files_are_refused() {
    vm("few open files", |h| {
        let bundle = Bundle::new(h, "box", &["true"]);
        let log = h.path("few.vm.log");
        let path = bundle.path().to_str().unwrap();
        let create =
            ["create", "--isolation", "vm", "--vm-log", log.to_str().unwrap(), "--bundle", path];
        let plain = h.command(&[&create[..], &["box"]].concat());
        let mut limited = Command::new("prlimit");
        limited.arg("--nofile=1100:1100").arg(plain.get_program()).args(plain.get_args());
        limited.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        h.finish(limited).refused("cannot start the virtual machine");
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains("1100 open files (RLIMIT_NOFILE) is below 1280"), "{log}");
        h.runhcs(&["state", "box"]).refused("does not exist");
    });
}

#[test]
fn a_guest_that_hangs_hangs_nobody() {
    vm("hanging guest", |h| {
        let id = h.token.as_str();
        let pod = Pod::new(h, unchanged);
        let waiting = Bundle::new(h, "waiting", &["true"]).in_pod("container", id);
        let path = waiting.path().to_str().unwrap();
        h.runhcs(&["create", "--bundle", path, "waiting"]).ok();
        signal("-STOP", &process(h, "guest="));
        let late = Bundle::new(h, "late", &["true"]).in_pod("container", id);
        let late = late.path().to_str().unwrap().to_owned();
        let verbs: [&[&str]; 14] = [
            &["create", "--bundle", &late, "late"],
            &["start", "waiting"],
            &["state", "member"],
            &["exec", "member", "true"],
            &["kill", "member", "KILL"],
            &["ps", "member"],
            &["events", "--stats", "member"],
            &["events", "member"],
            &["pause", "member"],
            &["resume", "member"],
            &["resize-tty", "member", "80", "25"],
            &["update", "--pids-limit", "7", "member"],
            &["delete", "member"],
            &["delete", id],
        ];
        // All at once: each takes as long as a guest is given to answer.
        let asked: Vec<_> = verbs.iter().map(|verb| h.spawn(h.command(verb))).collect();
        let listed = h.spawn(h.command(&["list"]));
        for (verb, (child, files)) in verbs.iter().zip(asked) {
            let outcome = wait(child, files);
            let code = if verb[0] == "exec" { 255 } else { 1 };
            assert_eq!(outcome.code, code, "{verb:?}: {outcome:?}");
            let text = "the virtual machine hangs, or its host is overloaded";
            assert!(outcome.stderr.contains(text), "{verb:?}: {outcome:?}");
        }
        let listed = wait(listed.0, listed.1);
        assert!(listed.code == 0 && listed.stderr.contains("hangs"), "{listed:?}");
        // What has no answer to wait for isn't kept from ending.
        h.runhcs(&["sync", id]).ok();
        h.runhcs(&["state", "late"]).refused("does not exist");
        let log = std::fs::read_to_string(h.root().join(id).join("vm.log")).unwrap();
        assert!(log.contains("the guest doesn't answer any more"), "{log}");
        // And everything can be got rid of, with the VM and without.
        h.runhcs(&["delete", "--force", "waiting"]).ok();
        h.runhcs(&["delete", "--force", id]).ok();
        assert_eq!(wait(pod.member.0, pod.member.1).code, 137);
        h.runhcs(&["delete", "member"]).ok();
    });
}

#[test]
fn an_agent_that_answers_nothing_hangs_nobody() {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/vm-shim/tests/fake_agent/init.rs");
    for behaviour in ["hang", "spin"] {
        vm("silent agent", |h| {
            let image =
                fake_image::fake_image(&runhcs_tests::target().join("guest-image"), &source);
            h.write_config_for(image.path(), &format!("kernel-args = \"fake={behaviour}\""));
            let bundle = Bundle::new(h, "box", &["true"]);
            h.new_container(&["create"], &bundle, "box").refused("the virtual machine hangs");
            h.runhcs(&["state", "box"]).refused("does not exist");
        });
    }
}

/// A full file system for the state, while it exists.
struct FullDisk<'a>(&'a Path);

impl<'a> FullDisk<'a> {
    fn mount(path: &'a Path) -> Self {
        std::fs::create_dir(path).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=2m,mode=0700", "state"];
        assert!(Command::new("mount").args(mount).arg(path).status().unwrap().success());
        Self(path)
    }

    fn fill(&self) {
        let filler = self.0.join("~filler");
        let written = Command::new("dd")
            .args(["if=/dev/zero", "bs=1k"])
            .arg(format!("of={}", filler.display()))
            .output();
        assert!(!written.unwrap().status.success(), "the disk is not full");
    }
}

impl Drop for FullDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_host_whose_disk_is_full() {
    vm("full disk", |h| {
        let root = h.root();
        let disk = FullDisk::mount(&root);
        let id = h.token.as_str();
        let pod = Pod::new(h, unchanged);
        disk.fill();
        let late = Bundle::new(h, "late", &["true"]).in_pod("container", id);
        let path = late.path().to_str().unwrap();
        h.runhcs(&["create", "--bundle", path, "late"]).refused("No space left on device");
        h.runhcs(&["state", "late"]).refused("does not exist");
        // What runs goes on.
        assert_eq!(h.runhcs(&["exec", "member", "echo", "hello"]).ok().stdout, "hello\n");
        let flood =
            h.runhcs(&["exec", id, "sh", "-c", "yes | head -c 100000 > /dev/console; true"]);
        assert!(flood.code == 0 || flood.code == 1, "{flood:?}");
        // And ends: what can't be written down is still told to those who wait.
        signal("-9", &process(h, "guest="));
        let ended = wait(pod.member.0, pod.member.1);
        assert_eq!(ended.code, 137, "{ended:?}");
        assert!(ended.stderr.contains("QEMU was killed by signal 9"), "{ended:?}");
        h.wait_status(id, "stopped");
        h.runhcs(&["delete", "member"]).ok();
        h.runhcs(&["delete", id]).ok();
        std::fs::remove_file(root.join("~filler")).unwrap();
        let left: Vec<_> = std::fs::read_dir(&root)
            .unwrap()
            .flatten()
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('~'))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[path = "../../crates/vm-shim/tests/support/fake_image.rs"]
mod fake_image;
