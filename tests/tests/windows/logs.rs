//! Where shims log: files, and named pipes that somebody listens to.

use runhcs_tests::eventually;
use runhcs_tests::wine::{Wine, windows_path};

use crate::kinds::Kind;

/// Starts somebody who listens to a pipe, and returns what he hears once the other side is gone.
fn listening<T>(wine: &Wine, pipe: &str, body: impl FnOnce() -> T) -> String {
    let mut command = wine.command("hcs-sim-check.exe");
    command.args(["--listen", pipe]);
    let (child, files) = wine.spawn(command);
    let output = files.0.clone();
    let heard = || std::fs::read_to_string(&output).unwrap_or_default();
    eventually(|| heard().contains("listening"), heard);
    body();
    wine.wait(child, files).ok().stdout
}

#[test]
fn a_container_shim_logs_to_a_pipe() {
    Wine::run("shim log pipe", |wine| {
        let pipe = format!(r"\\.\pipe\{}-shim", wine.token);
        let log = listening(wine, &pipe, || {
            let bundle = Kind::Argon.bundle(wine, "one");
            let outcome = wine.new_container(&["run", "--shim-log", &pipe], &bundle, "one");
            assert_eq!(outcome.code, 7, "{outcome:?}");
        });
        assert!(log.contains("the process has ended"), "{log}");
        assert!(log.contains("container=\"one\""), "{log}");
        // Nobody listens any more: that is an error, and nothing is left of the container.
        let bundle = Kind::Argon.bundle(wine, "two");
        wine.new_container(&["run", "--shim-log", &pipe], &bundle, "two").refused("open log file");
    });
}

#[test]
fn a_vm_shim_logs_to_a_pipe_or_a_file() {
    Wine::run("vm log", |wine| {
        let pipe = format!(r"\\.\pipe\{}-vm", wine.token);
        let log = listening(wine, &pipe, || {
            let bundle = Kind::Lcow.bundle(wine, "one");
            let outcome = wine.new_container(&["run", "--vm-log", &pipe], &bundle, "one");
            assert_eq!(outcome.code, 7, "{outcome:?}");
        });
        assert!(log.contains("the virtual machine runs"), "{log}");
        let (vm, shim) = (wine.path("vm.log"), wine.path("shim.log"));
        let (vm_path, shim_path) = (windows_path(&vm), windows_path(&shim));
        let verb = ["--log-format", "json", "run", "--vm-log", &vm_path, "--shim-log", &shim_path];
        let bundle = Kind::Lcow.bundle(wine, "two");
        assert_eq!(wine.new_container(&verb, &bundle, "two").code, 7);
        for (file, words) in [(vm, "the virtual machine runs"), (shim, "the process has ended")] {
            let text = std::fs::read_to_string(&file).unwrap();
            let lines: Vec<serde_json::Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert!(lines.iter().any(|line| line["msg"] == words), "{text}");
            assert!(lines.iter().all(|line| line["container"] == "two"), "{text}");
        }
    });
}
