//! The Windows program, from its command line, under Wine and against a stand-in for the Host
//! Compute Service.

use std::process::Command;

use runhcs_tests::eventually;
use runhcs_tests::wine::{LINUX, WINDOWS, WindowsBundle, Wine, arguments, hyperv, in_pod};
use serde_json::Value;

/// The kinds of containers that there are on Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A Windows container on the host.
    Argon,
    /// A Windows container in a VM.
    Xenon,
    /// A Linux container, in a VM.
    Lcow,
}

impl Kind {
    /// A bundle whose process says something and ends with a code.
    fn bundle(self, wine: &Wine, name: &str) -> WindowsBundle {
        self.changed(wine, name, |_| {})
    }

    /// A bundle whose process stays.
    fn lasting(self, wine: &Wine, name: &str) -> WindowsBundle {
        self.changed(wine, name, |spec| match self {
            Self::Lcow => arguments(spec, &["sleep", "1000"]),
            _ => arguments(spec, &["ping", "-n", "1000", "127.0.0.1"]),
        })
    }

    fn changed(self, wine: &Wine, name: &str, change: impl FnOnce(&mut Value)) -> WindowsBundle {
        let kind = if self == Self::Lcow { LINUX } else { WINDOWS };
        WindowsBundle::new(wine, name, kind, |spec| {
            match self {
                Self::Lcow => arguments(spec, &["sh", "-c", "echo hello; exit 7"]),
                _ => arguments(spec, &["cmd", "/c", "echo hello&exit 7"]),
            }
            if self == Self::Xenon {
                hyperv(spec);
            }
            change(spec);
        })
    }

    /// A program of a container of this kind that ends with a code.
    fn exit(self, code: &str) -> Vec<String> {
        match self {
            Self::Lcow => vec!["exit".into(), code.into()],
            _ => vec!["cmd".into(), "/c".into(), format!("exit {code}")],
        }
    }
}

/// Runs a test body for all kinds of containers, as three tests.
macro_rules! in_all {
    ($name:ident, $body:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn argon() {
                Wine::run(concat!(stringify!($name), " argon"), |wine| $body(wine, Kind::Argon));
            }

            #[test]
            fn xenon() {
                Wine::run(concat!(stringify!($name), " xenon"), |wine| $body(wine, Kind::Xenon));
            }

            #[test]
            fn lcow() {
                Wine::run(concat!(stringify!($name), " lcow"), |wine| $body(wine, Kind::Lcow));
            }
        }
    };
}

/// What the stand-in's own check says, so that the tests can build on it.
const CHECK: &str = "\
not JSON: 0x8037010D
an unknown field: 0x8037010D
a missing field: 0x8037010D
why: \"ComputeSystem: ComputeSystem has no field Ovner\"
opening nothing: 0x8037010E
making it again: 0x8037010F
pausing what is created: 0x80370105
starting: 0x00000000
starting again: 0x80370105
state: \"Running\"
pausing: 0x00000000
shutting down what is paused: 0x80370105
resuming: 0x00000000
seen by another: yes
terminating: 0x00000000
event: 1
terminating again: 0x80370110
after the last handle: 0x8037010E
a container without a root: 0x80070003
adding the root: 0x00000000
adding it again: 0x800700B7
removing what is used: 0x800700AA
a process too early: 0x80370105
exec: a b 0
a signal: 143
terminating what has ended: 0x8037011F
a signal that is handled: 5
init: hello
from outside 7
the container's end: 1
what it left: true
removing the root: 0x00000000
failing on purpose: 0x80370106
hanging on purpose: 0x80370118
starting at last: 0x00000000
failing afterwards: 0x80370107
it was done: 0x80370110
";

#[test]
fn the_stand_in_is_as_strict_as_it_says() {
    Wine::run("stand-in", |wine| {
        wine.sim
            .faults(&[
                "HcsStartComputeSystem(faulty)#1:fail:0x80370106",
                "HcsStartComputeSystem(faulty)#2:hang",
                "HcsTerminateComputeSystem(faulty)#1:late:0x80370107",
            ])
            .unwrap();
        let outcome = wine.finish(wine.command("hcs-sim-check.exe")).ok();
        assert_eq!(outcome.stdout, CHECK);
    });
}

#[test]
fn without_the_service_nothing_is_done() {
    Wine::run("no service", |wine| {
        let bundle = Kind::Argon.bundle(wine, "one");
        let path = runhcs_tests::wine::windows_path(bundle.path());
        let mut command = wine.runhcs_command(&["create", "--bundle", &path, "one"]);
        command.env("HCS_SIM", "127.0.0.1:1");
        wine.finish(command).refused("");
        wine.runhcs(&["state", "one"]).refused("one");
    });
}

in_all!(run, |wine: &Wine, kind: Kind| {
    let outcome = wine.new_container(&["run"], &kind.bundle(wine, "one"), "one");
    assert_eq!(outcome.code, 7, "{outcome:?}");
    assert_eq!(outcome.stdout, "hello\n");
});

in_all!(lifecycle, |wine: &Wine, kind: Kind| {
    wine.new_container(&["create"], &kind.lasting(wine, "one"), "one").ok();
    assert_eq!(wine.state("one")["status"], "created");
    wine.new_container(&["create"], &kind.lasting(wine, "one"), "one").refused("one");
    wine.runhcs(&["start", "one"]).ok();
    assert_eq!(wine.state("one")["status"], "running");
    wine.runhcs(&["start", "one"]).refused("one");
    wine.runhcs(&["delete", "one"]).refused("one");
    let list = wine.runhcs(&["list", "--quiet"]).ok();
    assert_eq!(list.stdout.trim(), "one");
    let code = kind.exit("42");
    let mut exec = vec!["exec", "one"];
    exec.extend(code.iter().map(String::as_str));
    assert_eq!(wine.runhcs(&exec).code, 42);
    wine.runhcs(&["pause", "one"]).ok();
    assert_eq!(wine.state("one")["status"], "paused");
    wine.runhcs(&["resume", "one"]).ok();
    wine.runhcs(&["kill", "one", "KILL"]).ok();
    wine.wait_status("one", "stopped");
    wine.runhcs(&["kill", "one", "KILL"]).refused("one");
    wine.runhcs(&["delete", "one"]).ok();
    wine.runhcs(&["state", "one"]).refused("one");
});

in_all!(delete_by_force, |wine: &Wine, kind: Kind| {
    wine.new_container(&["run", "--detach"], &kind.lasting(wine, "one"), "one").ok();
    wine.new_container(&["create"], &kind.lasting(wine, "two"), "two").ok();
    wine.runhcs(&["delete", "--force", "one"]).ok();
    wine.runhcs(&["delete", "--force", "two"]).ok();
    wine.runhcs(&["delete", "--force", "three"]).ok();
});

/// A pod: a sandbox with a VM, and two containers in it that were created at the same time.
fn pod(wine: &Wine, kind: Kind) {
    let sandbox = kind.changed(wine, "pod", |spec| {
        in_pod(spec, "sandbox", "pod");
        match kind {
            Kind::Lcow => arguments(spec, &["sleep", "1000"]),
            _ => arguments(spec, &["ping", "-n", "1000", "127.0.0.1"]),
        }
    });
    wine.new_container(&["run", "--detach"], &sandbox, "pod").ok();
    let alone = wine.sim.snapshot().unwrap();
    let children: Vec<_> = ["one", "two"]
        .map(|id| {
            let bundle = kind.changed(wine, id, |spec| in_pod(spec, "container", "pod"));
            let path = runhcs_tests::wine::windows_path(bundle.path());
            wine.spawn(wine.runhcs_command(&["create", "--bundle", &path, id]))
        })
        .into_iter()
        .collect();
    for (child, files) in children {
        wine.wait(child, files).ok();
    }
    let machines = |wine: &Wine| {
        let systems = wine.sim.snapshot().unwrap().systems;
        systems.iter().filter(|system| system.id.ends_with("@vm")).count()
    };
    assert_eq!(machines(wine), usize::from(kind != Kind::Argon));
    for id in ["one", "two"] {
        wine.runhcs(&["start", id]).ok();
        wine.wait_status(id, "stopped");
        wine.runhcs(&["delete", id]).ok();
    }
    // The VM has again what it had before, and nothing else.
    let resources = |snapshot: &hcs_sim::wire::Snapshot| -> Vec<_> {
        snapshot.systems.iter().map(|s| (s.id.clone(), s.resources.clone())).collect()
    };
    assert_eq!(resources(&wine.sim.snapshot().unwrap()), resources(&alone));
    wine.runhcs(&["delete", "--force", "pod"]).ok();
}

in_all!(a_pod_shares_what_its_sandbox_has, pod);

#[test]
fn contradictions_are_refused() {
    Wine::run("contradictions", |wine| {
        let lost = Kind::Lcow.changed(wine, "lost", |spec| in_pod(spec, "container", "nowhere"));
        wine.new_container(&["create"], &lost, "lost").refused("nowhere");
        let other = Kind::Lcow.changed(wine, "other", |spec| in_pod(spec, "sandbox", "else"));
        wine.new_container(&["create"], &other, "other").refused("else");
        let bundle = Kind::Lcow.bundle(wine, "one");
        wine.new_container(&["create", "--host", "nobody"], &bundle, "one").refused("nobody");
    });
}

/// An error that functions of disks can return too, which know the system's errors only
/// (`ERROR_IO_DEVICE`).
const FAILURE: &str = "0x8007045D";

in_all!(every_call_may_fail, |wine: &Wine, kind: Kind| {
    let bundle = kind.lasting(wine, "one");
    wine.new_container(&["run", "--detach"], &bundle, "one").ok();
    let calls = wine.calls();
    wine.runhcs(&["delete", "--force", "one"]).ok();
    let mut failed = 0;
    for (number, call) in calls.iter().enumerate() {
        // Closing says nothing to the caller.
        if call.function == "HcsClose" {
            continue;
        }
        // The failure of this call and of no other, by the count of its function's calls.
        let same = calls[..number].iter().filter(|other| other.function == call.function).count();
        let fault = format!("{}#{}:fail:{FAILURE}", call.function, same + 1);
        wine.sim.faults(&[&fault]).unwrap();
        let outcome = wine.new_container(&["run", "--detach"], &bundle, "one");
        wine.sim.faults(&[]).unwrap();
        if outcome.code == 0 {
            // The process runs by then, and goes on with a standard input that is still open.
            assert_eq!(call.function, "HcsModifyProcess", "{fault}: {outcome:?}");
            wine.runhcs(&["delete", "--force", "one"]).ok();
        } else {
            failed += 1;
            assert_eq!(outcome.code, 1, "{fault}: {outcome:?}");
            assert!(outcome.stderr.contains(FAILURE), "{fault}: {outcome:?}");
        }
        let left = wine.left();
        assert!(left.is_empty(), "{fault} left:\n{}", left.join("\n"));
    }
    assert!(failed >= 3, "{calls:?}");
});

in_all!(every_call_may_be_the_last, |wine: &Wine, kind: Kind| {
    let bundle = kind.lasting(wine, "one");
    wine.new_container(&["run", "--detach"], &bundle, "one").ok();
    let calls = wine.calls();
    wine.runhcs(&["delete", "--force", "one"]).ok();
    for (number, call) in calls.iter().enumerate() {
        let same = calls[..number].iter().filter(|other| other.function == call.function).count();
        // Whoever makes this call is killed: the command, or one of its shims.
        let fault = format!("{}#{}:kill", call.function, same + 1);
        wine.sim.faults(&[&fault]).unwrap();
        let outcome = wine.new_container(&["run", "--detach"], &bundle, "one");
        wine.sim.faults(&[]).unwrap();
        wine.runhcs(&["delete", "--force", "one"]).ok();
        let left = wine.left();
        assert!(left.is_empty(), "{fault} left, after {outcome:?}:\n{}", left.join("\n"));
    }
});

#[test]
fn signals_reach_linux_processes() {
    Wine::run("signals", |wine| {
        let bundle = Kind::Lcow.changed(wine, "one", |spec| {
            arguments(spec, &["sh", "-c", "trap 15 9; echo ready; sleep 1000"]);
        });
        let path = runhcs_tests::wine::windows_path(bundle.path());
        let (child, files) = wine.spawn(wine.runhcs_command(&["run", "--bundle", &path, "one"]));
        let output = files.0.clone();
        let ready = || std::fs::read_to_string(&output).is_ok_and(|text| text.contains("ready"));
        eventually(ready, || format!("{:?}", std::fs::read_to_string(&output)));
        wine.runhcs(&["kill", "one", "TERM"]).ok();
        assert_eq!(wine.wait(child, files).code, 9);
    });
}

#[test]
fn a_vm_that_ends_ends_what_is_in_it() {
    Wine::run("vm ends", |wine| {
        let bundle = Kind::Lcow.lasting(wine, "one");
        wine.new_container(&["run", "--detach"], &bundle, "one").ok();
        let mut processes = Vec::new();
        for system in wine.sim.snapshot().unwrap().systems {
            processes.extend(system.processes);
        }
        assert!(!processes.is_empty());
        // The VM's shim has the VM; without the shim there is none.
        let shims =
            Command::new("pgrep").args(["-f", &format!("{} .*vm-shim", wine.token)]).output();
        let shims = String::from_utf8(shims.unwrap().stdout).unwrap();
        for shim in shims.split_whitespace() {
            Command::new("kill").args(["-9", shim]).status().unwrap();
        }
        assert!(!shims.is_empty());
        wine.wait_status("one", "stopped");
        wine.runhcs(&["delete", "one"]).ok();
    });
}
