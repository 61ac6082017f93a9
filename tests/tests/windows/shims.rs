//! Shims by themselves: how one reports to whoever starts it, and what it has of that one's.

use std::fs::File;
use std::process::Command;

use runhcs_tests::wine::{Wine, in_pod, windows_path};
use runhcs_tests::{Outcome, eventually};
use serde_json::json;

use crate::access::probe;
use crate::foreground::Watched;
use crate::kinds::{Kind, in_all};

/// What a shim that is ready says.
const READY: &str = "\0OK\0";

/// A shim as the command starts it, whose standard output is for its verdict.
fn shim(wine: &Wine, arguments: &[&str]) -> Command {
    wine.runhcs_command(arguments)
}

/// Runs one that isn't ready, and returns why.
#[track_caller]
fn reason(wine: &Wine, command: Command) -> String {
    let Outcome { code, stdout, .. } = wine.finish(command);
    assert_eq!(code, 1, "{stdout:?}");
    assert!(!stdout.contains(READY), "{stdout:?}");
    stdout
}

/// Starts one that is ready, and returns how to wait for it.
fn ready<'a>(wine: &'a Wine, command: Command) -> impl FnOnce() -> Outcome + use<'a> {
    let (child, files) = wine.spawn(command);
    let output = files.0.clone();
    let said = || std::fs::read_to_string(&output).unwrap();
    eventually(|| said() == READY, || format!("{:?}", said()));
    move || wine.wait(child, files)
}

/// The document of a further process.
fn further(wine: &Wine, arguments: &[&str]) -> File {
    let path = wine.path("process.json");
    let cwd = if arguments[0] == "sleep" { "/" } else { "C:\\" };
    let process = json!({"cwd": cwd, "args": arguments, "user": {"uid": 0, "gid": 0}});
    std::fs::write(&path, process.to_string()).unwrap();
    File::open(path).unwrap()
}

in_all!(a_further_processs_shim_says_that_it_is_ready, |wine: &Wine, kind: Kind| {
    let nobodys = reason(wine, shim(wine, &["shim", "--id", "one"]));
    assert!(nobodys.contains("one does not exist"), "{nobodys}");
    wine.new_container(&["run", "--detach"], &kind.lasting(wine, "one"), "one").ok();
    let process = |arguments: &[&str]| {
        let mut command = shim(wine, &["shim", "--id", "one", "--exec"]);
        command.stdin(further(wine, arguments));
        command
    };
    let lasting: &[&str] = match kind {
        Kind::Lcow => &["sleep", "1000"],
        _ => &["ping", "-n", "1000", "127.0.0.1"],
    };
    // It says nothing else, and its exit code is the process's.
    let end = ready(wine, process(lasting));
    let processes = wine.runhcs(&["ps", "--format", "json", "one"]).ok().stdout;
    let processes: Vec<u32> = serde_json::from_str(&processes).unwrap();
    assert_eq!(processes.len(), 2);
    wine.runhcs(&["delete", "--force", "one"]).ok();
    let outcome = end();
    assert_ne!(outcome.code, 0, "{outcome:?}");
    assert_eq!(outcome.stdout, READY);

    // Whatever keeps it from being ready is what it says.
    assert!(reason(wine, process(lasting)).contains("one does not exist"));
    wine.new_container(&["run", "--detach"], &kind.lasting(wine, "one"), "one").ok();
    wine.sim.faults(&["HcsCreateProcess#1:fail:0x8007045D"]).unwrap();
    assert!(reason(wine, process(lasting)).contains("0x8007045D"));
    wine.sim.faults(&[]).unwrap();
    let mut nothing = shim(wine, &["shim", "--id", "one", "--exec"]);
    nothing.stdin(File::open("/dev/null").unwrap());
    assert!(reason(wine, nothing).contains("read the process"));
    wine.runhcs(&["delete", "--force", "one"]).ok();
});

/// Kills the shims of VMs.
fn kill_vm_shims(wine: &Wine) {
    let mut shims = wine.shims();
    shims.retain(|(_, line)| line.contains(" vm-shim "));
    assert_eq!(shims.len(), 1, "{shims:?}");
    for (pid, _) in shims {
        Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }
}

fn brings_its_vm_up(wine: &Wine, kind: Kind) {
    let machines = || {
        let systems = wine.sim.snapshot().unwrap().systems;
        systems.iter().filter(|system| system.id == "one@vm").count()
    };
    let vm_shim = || shim(wine, &["vm-shim", "--id", "one"]);
    assert!(reason(wine, vm_shim()).contains("one does not exist"));
    wine.new_container(&["create"], &kind.lasting(wine, "one"), "one").ok();
    // Wine lets several have a pipe of a name, so it is the service that refuses a second one.
    let second = reason(wine, vm_shim());
    assert!(second.contains("one@vm"), "{second}");
    assert_eq!(machines(), 1);
    kill_vm_shims(wine);
    eventually(|| machines() == 0, || "the VM outlives its shim".to_owned());
    wine.sim.faults(&["HcsStartComputeSystem(one@vm)#1:fail:0x8007045D"]).unwrap();
    assert!(reason(wine, vm_shim()).contains("0x8007045D"));
    assert_eq!(machines(), 0);
    wine.sim.faults(&[]).unwrap();
    // One that is ready has the VM, and ends with it.
    let end = ready(wine, vm_shim());
    assert_eq!(machines(), 1);
    wine.runhcs(&["delete", "--force", "one"]).ok();
    let outcome = end();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, READY), "{outcome:?}");
}

#[test]
fn a_vm_shim_brings_a_linux_vm_up() {
    Wine::run("vm shim lcow", |wine| brings_its_vm_up(wine, Kind::Lcow));
}

#[test]
fn a_vm_shim_brings_a_windows_vm_up() {
    Wine::run("vm shim xenon", |wine| brings_its_vm_up(wine, Kind::Xenon));
}

/// Calls that only a shim makes before it is ready, by the shim's name.
fn calls_of_shims(kind: Kind) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut calls = vec![("container shim", "HcsOpenComputeSystem(one)#1", "--shim-log")];
    if kind != Kind::Argon {
        calls.push(("VM shim", "HcsStartComputeSystem(one@vm)#1", "--vm-log"));
    }
    calls
}

in_all!(what_a_shim_says_is_the_commands_error, |wine: &Wine, kind: Kind| {
    let bundle = kind.lasting(wine, "one");
    for (name, call, _) in calls_of_shims(kind) {
        wine.sim.faults(&[&format!("{call}:fail:0x8007045D")]).unwrap();
        let outcome = wine.new_container(&["create"], &bundle, "one");
        wine.sim.faults(&[]).unwrap();
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.starts_with(&format!("runhcs: {name}: ")), "{outcome:?}");
        assert!(outcome.stderr.contains("0x8007045D"), "{outcome:?}");
        assert_eq!(wine.left(), [] as [String; 0]);
    }
});

in_all!(a_shim_that_dies_without_a_word_is_told_of, |wine: &Wine, kind: Kind| {
    let bundle = kind.lasting(wine, "one");
    for (name, call, log) in calls_of_shims(kind) {
        wine.sim.faults(&[&format!("{call}:kill")]).unwrap();
        let outcome = wine.new_container(&["create"], &bundle, "one");
        wine.sim.faults(&[]).unwrap();
        assert_eq!(outcome.code, 1, "{outcome:?}");
        let said = format!("runhcs: the {name} ended without a word, with exit code 0x");
        assert!(outcome.stderr.starts_with(&said), "{outcome:?}");
        assert!(outcome.stderr.contains(log), "{outcome:?}");
        assert_eq!(wine.left(), [] as [String; 0]);
    }
    // That of a further process, too.
    wine.new_container(&["run", "--detach"], &bundle, "one").ok();
    wine.sim.faults(&["HcsCreateProcess#1:kill"]).unwrap();
    let mut line = vec!["exec".to_owned(), "one".to_owned()];
    line.extend(kind.exit("0"));
    let outcome = wine.runhcs(&line.iter().map(String::as_str).collect::<Vec<_>>());
    wine.sim.faults(&[]).unwrap();
    assert_eq!(outcome.code, 255, "{outcome:?}");
    assert!(outcome.stderr.contains("the container shim ended without a word"), "{outcome:?}");
    wine.runhcs(&["delete", "--force", "one"]).ok();
});

in_all!(shims_outlive_their_caller_and_its_console, |wine: &Wine, kind: Kind| {
    let path = windows_path(kind.lasting(wine, "one").path());
    let create = wine.runhcs_command(&["create", "--bundle", &path, "one"]);
    let ended = Watched::start_command(wine, "console-aside", create).end();
    assert_eq!((ended.code.as_str(), ended.others), ("0", 0));
    // The console is gone.
    assert_eq!(wine.shims().len(), if kind == Kind::Argon { 1 } else { 2 });
    wine.runhcs(&["start", "one"]).ok();
    assert_eq!(wine.state("one")["status"], "running");
    wine.runhcs(&["delete", "--force", "one"]).ok();
});

in_all!(only_who_carries_data_to_a_console_has_it, |wine: &Wine, kind: Kind| {
    let path = windows_path(kind.lasting(wine, "one").path());
    let run = wine.runhcs_command(&["run", "--bundle", &path, "one"]);
    let console = Watched::start_command(wine, "console", run);
    let state = || wine.runhcs(&["state", "one"]).stdout;
    eventually(|| state().contains("\"running\""), state);
    // The command and the container's shim, but not a VM's.
    assert_eq!(wine.shims().len(), if kind == Kind::Argon { 1 } else { 2 });
    assert_eq!(console.others(), 2);
    wine.runhcs(&["kill", "one", "KILL"]).ok();
    console.end();
});

/// Asks a pipe, and returns the answer.
fn ask(wine: &Wine, pipe: &str, message: &str) -> String {
    probe(wine, &["ask", pipe, message])
}

/// The pipe of a container's shim or of its VM's.
fn pipe(wine: &Wine, id: &str, kind: &str) -> String {
    let unique_id = wine.stored(id, "record")["unique_id"].as_str().unwrap().to_owned();
    format!(r"\\.\pipe\ProtectedPrefix\Administrators\runhcs-{kind}-{unique_id}")
}

fn answers_whatever_it_is_asked(wine: &Wine, kind: Kind) {
    let sandbox = kind.lasting_with(wine, "pod", |spec| in_pod(spec, "sandbox", "pod"));
    wine.new_container(&["run", "--detach"], &sandbox, "pod").ok();
    wine.new_container(&["create"], &Kind::Argon.lasting(wine, "other"), "other").ok();
    let pipe = pipe(wine, "pod", "vm");
    for (message, answer) in [
        ("nonsense", "understand a request"),
        (r#"{"ID":"pod"}"#, "Op"),
        (r#"{"ID":"pod","Op":"explode"}"#, "explode"),
        (r#"{"ID":"","Op":"sync"}"#, "understand a request"),
        (r#"{"ID":"pod","Op":"sync","More":1}"#, "More"),
        (r#"{"ID":"pod","Op":"sync"}"#, "has no network namespace"),
        (r#"{"ID":"pod","Op":"create"}"#, "is in the virtual machine already"),
        (r#"{"ID":"nobody","Op":"create"}"#, "nobody does not exist"),
        (r#"{"ID":"other","Op":"create"}"#, "is not to be in the virtual machine of pod"),
        // Whoever holds nothing has nothing to give back.
        (r#"{"ID":"nobody","Op":"unmount"}"#, READY),
        (r#"{"ID":"nobody","Op":"unmount-disk"}"#, READY),
    ] {
        let said = ask(wine, &pipe, message);
        assert!(said.contains(answer), "{message}: {said:?}");
    }
    // Somebody who has nothing to ask.
    assert_eq!(ask(wine, &pipe, ""), "");
    let member = kind.changed(wine, "one", |spec| in_pod(spec, "container", "pod"));
    assert_eq!(wine.new_container(&["run"], &member, "one").code, 7);
    for id in ["other", "pod"] {
        wine.runhcs(&["delete", "--force", id]).ok();
    }
}

#[test]
fn a_linux_vms_shim_answers_whatever_it_is_asked() {
    Wine::run("requests lcow", |wine| answers_whatever_it_is_asked(wine, Kind::Lcow));
}

#[test]
fn a_windows_vms_shim_answers_whatever_it_is_asked() {
    Wine::run("requests xenon", |wine| answers_whatever_it_is_asked(wine, Kind::Xenon));
}

in_all!(a_container_is_started_by_start_alone, |wine: &Wine, kind: Kind| {
    wine.new_container(&["create"], &kind.lasting(wine, "one"), "one").ok();
    let pipe = pipe(wine, "one", "shim");
    for message in ["nonsense", "", "star"] {
        assert_eq!(ask(wine, &pipe, message), "", "{message}");
    }
    assert_eq!(wine.state("one")["status"], "created");
    wine.runhcs(&["start", "one"]).ok();
    assert_eq!(wine.state("one")["status"], "running");
    // Nobody can ask again.
    let mut command = wine.command("windows-probe.exe");
    command.args(["ask", &pipe, "start"]);
    wine.finish(command).refused("open the pipe");
    wine.runhcs(&["delete", "--force", "one"]).ok();
});

in_all!(a_container_whose_process_has_ended_is_shut_down, |wine: &Wine, kind: Kind| {
    let path = windows_path(kind.bundle(wine, "one").path());
    let faults: [&[&str]; 3] = [
        &[],
        &["HcsShutDownComputeSystem(one)#1:fail:0x8007045D"],
        &["HcsShutDownComputeSystem(one)#1:hang"],
    ];
    for fault in faults {
        wine.sim.faults(fault).unwrap();
        let mut command = wine.runhcs_command(&["run", "--keep", "--bundle", &path, "one"]);
        command.env("RUNHCS_DEADLINE", "3000");
        // Whether it goes well or not is nothing to the process's exit code.
        assert_eq!(wine.finish(command).code, 7, "{fault:?}");
        wine.sim.faults(&[]).unwrap();
        let mut calls = wine.calls();
        calls.retain(|call| call.about.split_whitespace().next() == Some("one"));
        let ended = |function: &str| calls.iter().any(|call| call.function == function);
        assert!(ended("HcsShutDownComputeSystem"), "{fault:?}: {calls:?}");
        assert_eq!(ended("HcsTerminateComputeSystem"), !fault.is_empty(), "{fault:?}: {calls:?}");
        let systems = wine.sim.snapshot().unwrap().systems;
        assert!(systems.iter().all(|system| system.id != "one"), "{fault:?}: {systems:?}");
        wine.runhcs(&["delete", "one"]).ok();
    }
});
