//! Benchmarks that somebody ends early, and those in which a program fails: nothing that they started
//! is left.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use runhcs_tests::{Harness, Isolation, Outcome, binary, eventually, target, wait};

/// A benchmark's containers have the same control groups as another's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone(isolation: Isolation, name: &str, body: impl FnOnce(&Harness)) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    Harness::run(isolation, name, body);
}

/// The control groups of benchmarks' containers, of either version of control groups.
fn control_groups() -> Vec<PathBuf> {
    let found = Command::new("find").args(["/sys/fs/cgroup", "-type", "d"]).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let ours = |path: &&str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        // Other tests run beside this one, and have a group for all of theirs.
        !path.contains("runhcs-e2e")
            && (["bench", "on-host", "pod"].contains(&name) || name.starts_with("long-"))
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

/// A runtime that is runhcs but for commands whose last words are `failing`.
fn runtime_that_fails(h: &Harness, path: &str, failing: &str) -> PathBuf {
    let (path, runhcs) = (h.path(path), binary("runhcs"));
    let script = format!(
        "#!/bin/sh
case \"$*\" in *' {failing}') echo 'can not {failing}' >&2; echo 'nor else' >&2; exit 1;; esac
exec {} \"$@\"
",
        runhcs.display()
    );
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Compares without VMs, as quickly as can be.
fn compare(h: &Harness, runhcs: PathBuf) -> Outcome {
    let mut compare = Command::new(binary("compare"));
    compare.arg("--runhcs").arg(runhcs).args(["--rounds", "1", "--many", "20"]);
    let path = format!("{}:{}", h.path("peers").display(), std::env::var("PATH").unwrap());
    compare.env("PATH", path).env("TMPDIR", h.path("tmp")).env("RUNHCS_E2E", &h.token);
    h.finish(compare)
}

/// A peer that fails loses its row, and with it what it has left; all others are measured.
#[test]
fn a_peer_that_fails_loses_its_row() {
    alone(Isolation::Process, "failing peers", |h| {
        let before = control_groups();
        for (peer, failing) in
            [("crun", "start bench"), ("runc", "exec long-runc /bin/true"), ("youki", "b17")]
        {
            runtime_that_fails(h, &format!("peers/{peer}"), failing);
        }
        let outcome = compare(h, binary("runhcs")).ok();
        let expected = [
            ("run true", None),
            ("create, start, delete --force", Some(("crun", "start bench"))),
            ("exec true", Some(("runc", "exec long-runc /bin/true"))),
            ("20 times run true, one after another", Some(("youki", "b17"))),
            ("20 times run true, 8 at once", Some(("youki", "b17"))),
        ];
        let tables: Vec<&str> = outcome.stdout.split("\n\n").collect();
        assert_eq!(tables.len(), expected.len(), "{outcome:?}");
        for (table, (title, failing)) in tables.iter().zip(expected) {
            let lines: Vec<&str> = table.trim().lines().collect();
            assert_eq!(lines[0], title);
            let is_measured = |name: &str| {
                let row = lines.iter().find(|line| line.split(' ').next() == Some(name));
                row.unwrap_or_else(|| panic!("no {name} in {table}")).contains(" ms ")
            };
            for name in ["runhcs", "crun", "runc", "youki"] {
                let fails = failing.is_some_and(|(peer, _)| peer == name);
                assert_eq!(is_measured(name), !fails, "{name} in {table}");
            }
            if let Some((peer, words)) = failing {
                assert_eq!(*lines.last().unwrap(), format!("{peer} failed: can not {words}"));
            }
        }
        assert_eq!(outcome.stderr, "");
        assert_eq!(command_lines(&h.token), Vec::<String>::new());
        assert_eq!(control_groups(), before);
        assert_eq!(std::fs::read_dir(h.path("tmp")).unwrap().count(), 0);
    });
}

#[test]
fn a_comparison_without_runhcs_is_none() {
    alone(Isolation::Process, "failing runhcs", |h| {
        let before = control_groups();
        let outcome = compare(h, runtime_that_fails(h, "runhcs", "exec long-runhcs /bin/true"));
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains("can not exec long-runhcs /bin/true"), "{outcome:?}");
        assert!(!outcome.stdout.contains("exec true"), "{outcome:?}");
        assert_eq!(control_groups(), before);
        assert_eq!(std::fs::read_dir(h.path("tmp")).unwrap().count(), 0);
    });
}

#[test]
fn a_benchmark_that_is_ended_leaves_nothing() {
    alone(Isolation::Vm, "benchmark", |h| {
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
