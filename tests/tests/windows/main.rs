//! The Windows program, from its command line, under Wine and against a stand-in for the Host
//! Compute Service.

mod access;
mod consoles;
mod disks;
mod failures;
mod foreground;
mod kinds;
mod layers;
mod logs;
mod mounts;
mod network;
mod places;
mod pods;
mod shims;
mod state;
mod streams;
mod verbs;

use std::process::Command;

use runhcs_tests::eventually;
use runhcs_tests::wine::{Wine, arguments};

use kinds::{Kind, in_all};

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
    let listed = wine.runhcs(&["list", "--format", "json"]).ok().stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["status"], "running", "{listed}");
    let processes = wine.runhcs(&["ps", "--format", "json", "one"]).ok().stdout;
    let processes: Vec<u32> = serde_json::from_str(&processes).unwrap();
    assert!(!processes.is_empty());
    let table = wine.runhcs(&["ps", "one"]).ok().stdout;
    assert!(table.contains(&processes[0].to_string()), "{table}");
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

#[test]
fn a_new_configuration_can_be_run() {
    Wine::run("spec", |wine| {
        let features = wine.runhcs(&["features"]).ok().stdout;
        let features: serde_json::Value = serde_json::from_str(&features).unwrap();
        assert!(features["ociVersionMax"].is_string(), "{features}");
        let directory = wine.path("new");
        std::fs::create_dir(&directory).unwrap();
        let path = runhcs_tests::wine::windows_path(&directory);
        wine.runhcs(&["spec", "--bundle", &path]).ok();
        wine.runhcs(&["spec", "--bundle", &path]).refused("config.json");
        let text = std::fs::read_to_string(directory.join("config.json")).unwrap();
        let spec: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(spec["windows"].is_object(), "{spec}");
        assert!(spec["process"]["args"].is_array(), "{spec}");
    });
}

in_all!(delete_by_force, |wine: &Wine, kind: Kind| {
    wine.new_container(&["run", "--detach"], &kind.lasting(wine, "one"), "one").ok();
    wine.new_container(&["create"], &kind.lasting(wine, "two"), "two").ok();
    wine.runhcs(&["delete", "--force", "one"]).ok();
    wine.runhcs(&["delete", "--force", "two"]).ok();
    wine.runhcs(&["delete", "--force", "three"]).ok();
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

/// Windows processes are told of control events.
fn control_events(wine: &Wine, kind: Kind) {
    let bundle = kind.lasting(wine, "one");
    for (name, event) in
        [("INT", "CtrlC"), ("QUIT", "CtrlBreak"), ("HUP", "CtrlClose"), ("TERM", "CtrlShutdown")]
    {
        wine.new_container(&["run", "--detach"], &bundle, "one").ok();
        wine.runhcs(&["kill", "one", "USR1"]).refused("no counterpart");
        wine.calls();
        wine.runhcs(&["kill", "one", name]).ok();
        let mut calls = wine.calls().into_iter();
        let told = calls.find(|call| call.function == "HcsSignalProcess").unwrap().about;
        assert!(told.contains(&format!("\"{event}\"")), "{name}: {told}");
        wine.runhcs(&["delete", "--force", "one"]).ok();
    }
}

#[test]
fn signals_are_control_events_on_the_host() {
    Wine::run("control events argon", |wine| control_events(wine, Kind::Argon));
}

#[test]
fn signals_are_control_events_in_a_windows_vm() {
    Wine::run("control events xenon", |wine| control_events(wine, Kind::Xenon));
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
