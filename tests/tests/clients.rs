//! Real clients, and real root file systems.

use std::process::Command;

use runhcs_tests::{Bundle, Harness, Isolation, Netns, binary, in_both, target};

/// Podman with storage of the test's own.
fn podman(h: &Harness, arguments: &[&str]) -> Command {
    // A machine that may not raise limits can't have Podman's default ones.
    let config = h.path("containers.conf");
    let limits = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
    std::fs::write(&config, limits).unwrap();
    let mut command = Command::new("podman");
    command.arg("--root").arg(h.path("storage")).arg("--runroot").arg(h.path("runroot"));
    command.args([
        "--cgroup-manager",
        "cgroupfs",
        "--storage-driver",
        "vfs",
        "--events-backend",
        "file",
    ]);
    command.arg("--tmpdir").arg(h.path("podman-tmp")).arg("--runtime").arg(runtime(h));
    command.args(arguments).env("CONTAINERS_CONF", config);
    command
}

/// The command with the test's options built in: Podman's `--runtime-flag` doesn't reach the
/// clean-up after a container, which is a Podman of its own.
fn runtime(h: &Harness) -> std::path::PathBuf {
    let path = h.path("runhcs");
    if !path.exists() {
        // The program's name asks for the isolation, for Podman can't.
        let name = if h.isolation == Isolation::Vm { "runhcs-vm" } else { "runhcs" };
        let script = format!(
            "#!/bin/bash\nexec -a {name} {} --root {} --config {} \"$@\"\n",
            binary("runhcs").display(),
            h.root().display(),
            h.path("config.toml").display()
        );
        let text = h.path("runtime-script");
        std::fs::write(&text, script).unwrap();
        // Written by a child, so that no descriptor of ours keeps it from being executed.
        let installed = Command::new("install").arg("-m755").args([&text, &path]).status();
        assert!(installed.unwrap().success());
    }
    path
}

#[test]
fn podman_works_unchanged() {
    Harness::run(Isolation::Process, "podman", |h| {
        let bundle = Bundle::new(h, "box", &["true"]);
        let rootfs = bundle.path().join("rootfs");
        let rootfs = rootfs.to_str().unwrap();
        let run = |before: &[&str], after: &[&str]| {
            let all = [before, &["--network", "none", "--rootfs", rootfs], after].concat();
            h.finish(podman(h, &all))
        };
        let hello = run(&["run", "--rm"], &["sh", "-c", "echo hello; exit 7"]);
        assert_eq!((hello.code, hello.stdout.as_str()), (7, "hello\n"), "{hello:?}");
        run(&["run", "-d", "--name", "box"], &["sleep", "1000"]).ok();
        let exec = h.finish(podman(h, &["exec", "box", "sh", "-c", "echo inside; exit 9"]));
        assert_eq!((exec.code, exec.stdout.as_str()), (9, "inside\n"), "{exec:?}");
        let status = h.finish(podman(h, &["inspect", "--format", "{{.State.Status}}", "box"])).ok();
        assert_eq!(status.stdout, "running\n");
        h.finish(podman(h, &["pause", "box"])).ok();
        h.finish(podman(h, &["unpause", "box"])).ok();
        h.finish(podman(h, &["kill", "box"])).ok();
        h.finish(podman(h, &["rm", "--force", "--time", "0", "box"])).ok();
        let missing = run(&["run", "--rm"], &["no-such-program"]);
        assert_eq!(missing.code, 127, "{missing:?}");
        assert!(missing.stderr.contains("executable file not found"), "{missing:?}");
        let terminal = run(&["run", "--rm", "-t"], &["sh", "-c", "tty; exit 5"]);
        assert_eq!(terminal.code, 5, "{terminal:?}");
        assert!(terminal.stdout.starts_with("/dev/"), "{terminal:?}");
        run(&["run", "-d", "--name", "box"], &["sleep", "1000"]).ok();
        h.finish(podman(h, &["stop", "--time", "1", "box"])).ok();
        h.finish(podman(h, &["rm", "box"])).ok();
        h.finish(podman(h, &["system", "reset", "--force"])).ok();
    });
}

#[test]
fn podman_runs_containers_in_vms() {
    Harness::run(Isolation::Vm, "podman vm", |h| {
        let bundle = Bundle::new(h, "box", &["true"]);
        let rootfs = bundle.path().join("rootfs");
        let rootfs = rootfs.to_str().unwrap();
        let script = "uname -r; exit 7";
        let arguments = ["--network", "none", "--rootfs", rootfs, "sh", "-c", script];
        let run = h.finish(podman(h, &[&["run", "--rm"][..], &arguments].concat()));
        let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert!(run.code == 7 && run.stdout != host, "{run:?}");
        h.finish(podman(h, &["system", "reset", "--force"])).ok();
    });
}

in_both!(podmans_networks_reach_their_containers, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["true"]);
    let rootfs = bundle.path().join("rootfs");
    let script = "ip address show eth0; ping -c 1 -W 10 10.88.0.1 && echo reached";
    let rootfs = rootfs.to_str().unwrap();
    let podman = podman(h, &["run", "--rm", "--rootfs", rootfs, "sh", "-c", script]);
    // A host of its own, so that Podman's bridge and what it keeps about networks go with it.
    let host = Netns::new(h, "host-network");
    let mut command = host.command(&["unshare", "--mount", "sh", "-c"]);
    command.arg("mkdir -p /var/lib/cni; mount -t tmpfs cni /var/lib/cni; exec \"$@\"").arg("sh");
    command.arg(podman.get_program()).args(podman.get_args());
    for (name, value) in podman.get_envs() {
        command.env(name, value.unwrap());
    }
    command.env("RUNHCS_E2E", &h.token);
    let run = h.finish(command);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains("inet 10.88.0.") && run.stdout.contains("reached"), "{run:?}");
    drop(host);
    h.finish(self::podman(h, &["system", "reset", "--force"])).ok();
});

/// A Debian root, made once.
fn debian() -> std::path::PathBuf {
    static MADE: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        let root = target().join("test-rootfs/debian");
        if !root.join("etc/debian_version").exists() || root.join("debootstrap").exists() {
            let _ = std::fs::remove_dir_all(&root);
            std::fs::create_dir_all(root.parent().unwrap()).unwrap();
            let made = Command::new("debootstrap")
                .args(["--variant=minbase", "bookworm"])
                .arg(&root)
                .output();
            let made = made.expect("debootstrap is installed by `make test`");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        }
        root
    })
    .clone()
}

in_both!(a_debian_root_runs, |h: &Harness| {
    let directory = h.path("debian");
    std::fs::create_dir(&directory).unwrap();
    std::os::unix::fs::symlink(debian(), directory.join("rootfs")).unwrap();
    let script = "cat /etc/debian_version | grep -c '^12'; dpkg --audit && ls -l /bin/bash | wc -l; perl -e 'print 6*7, \"\\n\"'";
    let root = debian();
    let bundle = Bundle::with_root(h, directory, &["bash", "-c", script]).edit(|config| {
        config["root"]["path"] = serde_json::json!(root);
        config["root"]["readonly"] = serde_json::json!(true);
    });
    let run = h.new_container(&["run"], &bundle, "debian").ok();
    assert_eq!(run.stdout, "1\n1\n42\n", "{run:?}");
});

#[test]
fn versions_features_and_specs_are_what_clients_expect() {
    Harness::run(Isolation::Process, "versions", |h| {
        let version = h.runhcs(&["--version"]).ok().stdout;
        assert!(version.starts_with("runhcs 0.") && version.contains("\nspec: 1."), "{version}");
        let features = h.runhcs(&["features"]).ok().stdout;
        let features: serde_json::Value = serde_json::from_str(&features).unwrap();
        assert_eq!(features["linux"]["cgroup"]["v2"], true);
        let bundle = h.path("new");
        std::fs::create_dir(&bundle).unwrap();
        h.runhcs(&["spec", "--bundle", bundle.to_str().unwrap()]).ok();
        assert!(bundle.join("config.json").exists());
        h.runhcs(&["spec", "--bundle", bundle.to_str().unwrap()]).refused("config.json");
    });
}
