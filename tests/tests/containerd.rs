//! containerd, unchanged, with containers of both kinds.

use runhcs_tests::daemons::Daemon;
use runhcs_tests::{Bundle, Harness, Isolation, in_both};

in_both!(containerd_works_unchanged, |h: &Harness| {
    let ctr = Daemon::containerd(h);
    let bundle = Bundle::new(h, "box", &["true"]);
    let (rootfs, runtime) = (bundle.path().join("rootfs"), h.runtime());
    let (rootfs, runtime) = (rootfs.to_str().unwrap(), runtime.to_str().unwrap());
    let run = |options: &[&str], line: &[&str]| {
        let root = h.path("containerds-state");
        // By itself it gives containers of one name one control group, those of all daemons.
        let group = format!("/runhcs-e2e/{}/{}", h.token, line[0]);
        let own = ["--runc-binary", runtime, "--runc-root", root.to_str().unwrap(), "--rootfs"];
        ctr.run(&[&["run", "--cgroup", &group], options, &own[..], &[rootfs], line].concat())
    };
    let once = run(&["--rm"], &["once", "/bin/sh", "-c", "uname -r; exit 7"]);
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(
        (once.code, once.stdout == host),
        (7, h.isolation == Isolation::Process),
        "{once:?}"
    );

    run(&["--detach"], &["one", "/bin/sleep", "1000"]).ok();
    let exec = ["task", "exec", "--exec-id", "x", "one", "/bin/sh", "-c", "echo inside; exit 9"];
    let exec = ctr.run(&exec);
    assert_eq!((exec.code, exec.stdout.as_str()), (9, "inside\n"), "{exec:?}");
    ctr.run(&["task", "pause", "one"]).ok();
    ctr.run(&["task", "resume", "one"]).ok();
    let metrics = ctr.run(&["task", "metrics", "one"]).ok().stdout;
    assert!(metrics.contains("memory"), "{metrics}");
    ctr.run(&["task", "kill", "--signal", "KILL", "one"]).ok();
    let stopped = || ctr.run(&["task", "ls"]).stdout.contains("STOPPED");
    runhcs_tests::eventually(stopped, || format!("{:?}", ctr.run(&["task", "ls"])));
    let removed = ctr.run(&["task", "rm", "one"]).ok();
    assert!(removed.stderr.contains("exit code 137"), "{removed:?}");
    ctr.run(&["container", "rm", "one"]).ok();
    // containerd gives each of its namespaces a directory.
    let entries = std::fs::read_dir(h.path("containerds-state/default")).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let left: Vec<String> = names.filter(|name| !name.starts_with('~')).collect();
    assert!(left.is_empty(), "{left:?}");
});
