//! Benchmarks that somebody ends early: nothing that they started is left.

use std::path::PathBuf;
use std::process::Command;

use runhcs_tests::{Harness, Isolation, binary, eventually, target, wait};

/// The control groups of benchmarks' containers, of either version of control groups.
fn control_groups() -> Vec<PathBuf> {
    let found = Command::new("find").args(["/sys/fs/cgroup", "-type", "d"]).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let ours = |path: &&str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        // Other tests run beside this one, and have a group for all of theirs.
        !path.contains("runhcs-e2e") && ["bench", "on-host", "pod"].contains(&name)
    };
    found.lines().filter(ours).map(PathBuf::from).collect()
}

/// The command lines that hold a text.
fn command_lines(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ")
    });
    lines.filter(|line| line.contains(text)).collect()
}

#[test]
fn a_benchmark_that_is_ended_leaves_nothing() {
    Harness::run(Isolation::Vm, "benchmark", |h| {
        let before = control_groups();
        for signal in ["INT", "TERM"] {
            let mut compare = Command::new(binary("compare"));
            compare.arg("--runhcs").arg(binary("runhcs"));
            compare.arg("--vm-shim").arg(binary("runhcs-vm-shim"));
            compare.arg("--image").arg(target().join("guest-image"));
            compare.args(["--rounds", "0", "--vm-rounds", "0"]);
            compare.env("TMPDIR", h.path("tmp")).env("RUNHCS_E2E", &h.token);
            let (child, files) = h.spawn(compare);
            let explain = || std::fs::read_to_string(&files.1).unwrap();
            // QEMU, of a container that only the benchmark knows.
            eventually(|| !command_lines("guest=bench@vm").is_empty(), explain);
            assert_ne!(control_groups(), before);
            let id = child.id().to_string();
            let sent = Command::new("kill").args(["-s", signal, &id]).status();
            assert!(sent.unwrap().success());
            let ended = wait(child, files.clone());
            assert_eq!(ended.code, 1, "{ended:?}");
            assert!(ended.stderr.contains(&format!("ended by SIG{signal}")), "{ended:?}");
            for what in ["guest=bench@vm", &h.token] {
                assert_eq!(command_lines(what), Vec::<String>::new());
            }
            assert_eq!(control_groups(), before);
        }
    });
}
