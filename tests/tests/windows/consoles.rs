//! Consoles, as far as there are any under Wine: what the service is asked for, and what of a
//! process with a console is refused.

use runhcs_tests::wine::Wine;
use serde_json::{Value, json};

use crate::kinds::{Kind, in_all};

/// The documents of the calls of a function since the last time.
fn documents(wine: &Wine, function: &str) -> Vec<Value> {
    let calls = wine.calls().into_iter().filter(|call| call.function == function);
    let text = calls.filter_map(|call| Some(call.about.split_once(' ')?.1.to_owned()));
    text.map(|text| serde_json::from_str(&text).unwrap()).collect()
}

fn sizes(wine: &Wine) -> Vec<Value> {
    let requests = documents(wine, "HcsModifyProcess").into_iter();
    requests.filter(|r| r["Operation"] == "ConsoleSize").map(|r| r["ConsoleSize"].clone()).collect()
}

in_all!(a_console_has_a_size, |wine: &Wine, kind: Kind| {
    let bundle = kind.lasting_with(wine, "one", |spec| {
        spec["process"]["terminal"] = true.into();
        spec["process"]["consoleSize"] = json!({"height": 30, "width": 100});
    });
    wine.new_container(&["create"], &bundle, "one").ok();
    wine.runhcs(&["resize-tty", "one", "80", "25"]).refused("does not run");
    wine.runhcs(&["start", "one"]).ok();
    let asked = documents(wine, "HcsCreateProcess");
    assert_eq!(asked.len(), 1, "{asked:?}");
    // Height comes first.
    assert_eq!(asked[0]["ConsoleSize"], json!([30, 100]));
    // A console has one output.
    assert_eq!(asked[0]["CreateStdOutPipe"], true);
    assert_eq!(asked[0].get("CreateStdErrPipe"), None);
    assert_eq!(asked[0]["EmulateConsole"] == true, kind != Kind::Lcow);
    wine.runhcs(&["resize-tty", "one", "120", "40"]).ok();
    assert_eq!(sizes(wine), [json!({"Height": 40, "Width": 120})]);
    for bad in [["0", "40"], ["65536", "40"], ["x", "40"]] {
        wine.runhcs(&["resize-tty", "one", bad[0], bad[1]]).refused(bad[0]);
    }
    // The shim's pid stands for the process, too; that of nobody for none.
    let pid = wine.state("one")["pid"].to_string();
    wine.runhcs(&["resize-tty", "--pid", &pid, "one", "81", "26"]).ok();
    assert_eq!(sizes(wine), [json!({"Height": 26, "Width": 81})]);
    wine.runhcs(&["resize-tty", "--pid", "1", "one", "81", "26"]).refused("process 1");
    wine.runhcs(&["kill", "one", "KILL"]).ok();
    wine.wait_status("one", "stopped");
    wine.runhcs(&["resize-tty", "one", "80", "25"]).refused("not running");
    wine.runhcs(&["delete", "one"]).ok();
});

in_all!(a_further_process_has_a_console_of_its_own, |wine: &Wine, kind: Kind| {
    wine.new_container(&["run", "--detach"], &kind.lasting(wine, "one"), "one").ok();
    // The container's own process has none.
    wine.runhcs(&["resize-tty", "one", "80", "25"]).refused("one");
    let file = runhcs_tests::wine::windows_path(&wine.path("pid"));
    let mut line = vec!["exec", "--tty", "--detach", "--pid-file", &file, "one"];
    line.extend(match kind {
        Kind::Lcow => vec!["sleep", "1000"],
        _ => vec!["ping", "-n", "1000", "127.0.0.1"],
    });
    wine.calls();
    wine.runhcs(&line).ok();
    let pid = std::fs::read_to_string(wine.path("pid")).unwrap();
    wine.runhcs(&["resize-tty", "--pid", pid.trim(), "one", "90", "20"]).ok();
    assert_eq!(sizes(wine), [json!({"Height": 20, "Width": 90})]);
    wine.runhcs(&["delete", "--force", "one"]).ok();
});

#[test]
fn a_windows_process_with_a_console_can_only_be_ended() {
    Wine::run("console signals", |wine| {
        let bundle = Kind::Argon.lasting_with(wine, "one", |spec| {
            spec["process"]["terminal"] = true.into();
        });
        wine.new_container(&["run", "--detach"], &bundle, "one").ok();
        wine.runhcs(&["kill", "one", "INT"]).refused("no counterpart");
        assert_eq!(wine.state("one")["status"], "running");
        wine.runhcs(&["kill", "one", "TERM"]).ok();
        wine.wait_status("one", "stopped");
        wine.runhcs(&["delete", "one"]).ok();
    });
}

#[test]
fn the_output_of_a_console_is_the_commands() {
    Wine::run("console output", |wine| {
        for (kind, id) in [(Kind::Argon, "a"), (Kind::Lcow, "l")] {
            let bundle = kind.changed(wine, id, |spec| spec["process"]["terminal"] = true.into());
            let outcome = wine.new_container(&["run"], &bundle, id);
            assert_eq!((outcome.code, outcome.stdout.as_str()), (7, "hello\n"), "{outcome:?}");
        }
    });
}

#[test]
fn a_vms_console_is_a_pipe_of_the_hosts() {
    Wine::run("vm console", |wine| {
        let pipe = r"\\.\pipe\console-of-a-vm";
        for (kind, id) in [(Kind::Lcow, "l"), (Kind::Xenon, "x")] {
            wine.calls();
            let bundle = kind.bundle(wine, id);
            wine.new_container(&["create", "--vm-console", pipe], &bundle, id).ok();
            let ports: Vec<Value> = documents(wine, "HcsCreateComputeSystem")
                .into_iter()
                .map(|document| document["VirtualMachine"]["Devices"]["ComPorts"].clone())
                .filter(|ports| !ports.is_null())
                .collect();
            assert_eq!(ports, [json!({"0": {"NamedPipe": pipe}})]);
            wine.runhcs(&["delete", "--force", id]).ok();
        }
    });
}
