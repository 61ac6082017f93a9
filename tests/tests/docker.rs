//! Docker, unchanged, with containers of both kinds.

use runhcs_tests::daemons::Daemon;
use runhcs_tests::{Harness, Isolation, in_both};

in_both!(docker_works_unchanged, |h: &Harness| {
    let docker = Daemon::docker(h);
    let run = docker.run(&["run", "--rm", "box", "/bin/sh", "-c", "uname -r; exit 7"]);
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!((run.code, run.stdout == host), (7, h.isolation == Isolation::Process), "{run:?}");

    docker.run(&["run", "--detach", "--name", "one", "box", "/bin/sleep", "1000"]).ok();
    let exec = docker.run(&["exec", "one", "/bin/sh", "-c", "echo inside; exit 9"]);
    assert_eq!((exec.code, exec.stdout.as_str()), (9, "inside\n"), "{exec:?}");
    // Docker's own network, which a prestart hook puts in place.
    let shown =
        docker.run(&["exec", "one", "/bin/ip", "-o", "address", "show", "eth0"]).ok().stdout;
    assert!(shown.contains("172.17.0.2"), "{shown}");
    docker.run(&["exec", "one", "/bin/ping", "-c", "1", "-W", "10", "172.17.0.1"]).ok();
    docker.run(&["pause", "one"]).ok();
    docker.run(&["unpause", "one"]).ok();
    docker.run(&["update", "--memory", "100m", "--memory-swap", "100m", "one"]).ok();
    let state = docker.run(&["inspect", "--format", "{{.State.Status}}", "one"]).ok().stdout;
    assert_eq!(state, "running\n");
    docker.run(&["stop", "--time", "1", "one"]).ok();
    docker.run(&["start", "one"]).ok();
    docker.run(&["rm", "--force", "one"]).ok();
});

in_both!(docker_gives_terminals_and_limits, |h: &Harness| {
    let docker = Daemon::docker(h);
    let terminal = docker.run(&["run", "--rm", "--tty", "box", "/bin/sh", "-c", "tty; exit 5"]);
    assert_eq!(terminal.code, 5, "{terminal:?}");
    assert!(terminal.stdout.starts_with("/dev/pts/"), "{terminal:?}");
    let data = h.path("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "from the host\n").unwrap();
    let volume = format!("{}:/data", data.display());
    let options = ["--volume", &volume, "--tmpfs", "/tmp", "--read-only", "--memory", "64m"];
    let limits =
        ["--cpus", "1", "--pids-limit", "50", "--user", "1000:1000", "--hostname", "inside"];
    let script = "cat /data/file; touch /tmp/x && ! touch /x 2> /dev/null && id -u && hostname";
    let run = [&["run", "--rm"], &options[..], &limits[..], &["box", "/bin/sh", "-c", script]];
    let run = docker.run(&run.concat()).ok();
    assert_eq!(run.stdout, "from the host\n1000\ninside\n", "{run:?}");
    let missing = docker.run(&["run", "--rm", "box", "no-such-program"]);
    assert_eq!(missing.code, 127, "{missing:?}");
});
