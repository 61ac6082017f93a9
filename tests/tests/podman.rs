//! Podman, unchanged, with containers of both kinds.

use runhcs_tests::podman::podman;
use runhcs_tests::{Bundle, Harness, Host, Isolation, in_both};

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
    let client = podman(h, &["run", "--rm", "--rootfs", rootfs, "sh", "-c", script]);
    // A host of its own, so that Podman's bridge and what it keeps about networks go with it.
    let host = Host::new(h);
    let command = host.command(h, &client);
    let run = h.finish(command);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains("inet 10.88.0.") && run.stdout.contains("reached"), "{run:?}");
    drop(host);
    h.finish(podman(h, &["system", "reset", "--force"])).ok();
});

// Podman annotates the members of a pod with their sandbox, so a pod shares one VM.
in_both!(a_podman_pod_is_a_pod, |h: &Harness| {
    let host = Host::new(h);
    let podman = |arguments: &[&str]| h.finish(host.command(h, &podman(h, arguments)));
    let rootfs = |name: &str| {
        let bundle = Bundle::new(h, name, &["true"]);
        bundle.path().join("rootfs").to_str().unwrap().to_owned()
    };
    let (one, two) = (rootfs("one"), rootfs("two"));
    let pause = rootfs("pause");
    let archive = h.path("pause.tar");
    let mut tar = std::process::Command::new("tar");
    assert!(tar.args(["-C", &pause, "-cf"]).arg(&archive).arg(".").status().unwrap().success());
    let entry = "ENTRYPOINT [\"/bin/sleep\", \"1000\"]";
    podman(&["import", "--change", entry, archive.to_str().unwrap(), "pause"]).ok();
    podman(&["pod", "create", "--name", "pod", "--infra-image", "localhost/pause"]).ok();
    podman(&[
        "run", "--detach", "--pod", "pod", "--name", "one", "--rootfs", &one, "httpd", "-f", "-p",
        "8080", "-h", "/etc",
    ])
    .ok();
    let script = "uname -r; hostname; wget -qO- http://127.0.0.1:8080/hostname; exit 3";
    let run = podman(&["run", "--rm", "--pod", "pod", "--rootfs", &two, "sh", "-c", script]);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let own_kernel = run.stdout.lines().next() != Some(kernel.trim());
    assert_eq!((run.code, own_kernel), (3, h.isolation == Isolation::Vm), "{run:?}");
    assert!(run.stdout.lines().skip(1).all(|line| line == "pod"), "{run:?}");
    assert_eq!(run.stdout.lines().count(), 3, "{run:?}");
    if h.isolation == Isolation::Vm {
        let machines = std::fs::read_dir(h.root()).unwrap().flatten();
        let machines = machines.filter(|entry| entry.path().join("vm").exists());
        assert_eq!(machines.count(), 1, "the pod has one VM");
    }
    podman(&["pod", "rm", "--force", "--time", "0", "pod"]).ok();
    podman(&["system", "reset", "--force"]).ok();
});
