//! Who may use what a container has on its host: which handles its shims inherit, and the rights of
//! registry keys, locks and pipes, as far as Wine keeps them.

use std::io::Write;
use std::process::{Command, Stdio};

use runhcs_tests::eventually;
use runhcs_tests::wine::{Wine, windows_path};

use crate::kinds::{Kind, in_all};

/// Runs the probe, and returns what it says.
#[track_caller]
pub fn probe(wine: &Wine, arguments: &[&str]) -> String {
    let mut command = wine.command("windows-probe.exe");
    command.args(arguments);
    wine.finish(command).ok().stdout.trim_end().to_owned()
}

/// Runs the command from a process that has handles for everybody to inherit.
#[track_caller]
fn from_a_leaky_caller(wine: &Wine, arguments: &[&str]) {
    let mut command = wine.command("windows-probe.exe");
    let inner = wine.runhcs_command(arguments);
    command.args(["inherit", &windows_path(&wine.path("locked"))]).args(inner.get_args());
    let said = wine.finish(command).ok().stdout;
    assert_eq!(said, "with an heir: pipe held, file held\npipe closed, file closed\n");
}

in_all!(shims_inherit_three_handles_only, |wine: &Wine, kind: Kind| {
    let path = windows_path(kind.lasting(wine, "one").path());
    from_a_leaky_caller(wine, &["create", "--bundle", &path, "one"]);
    // Its shims, and with them whatever they had inherited, are still there.
    wine.runhcs(&["start", "one"]).ok();
    let shims = wine.shims();
    assert_eq!(shims.len(), if kind == Kind::Argon { 1 } else { 2 }, "{shims:?}");
    for (_, line) in &shims {
        let named = ["--stdin", "--stdout", "--stderr"].iter().filter(|name| line.contains(**name));
        assert_eq!(named.count(), if line.contains(" vm-shim ") { 0 } else { 3 }, "{line}");
    }
    let mut exec = vec!["exec", "--detach", "one"];
    exec.extend(match kind {
        Kind::Lcow => vec!["sleep", "1000"],
        _ => vec!["ping", "-n", "1000", "127.0.0.1"],
    });
    from_a_leaky_caller(wine, &exec);
    assert_eq!(wine.shims().len(), shims.len() + 1);
    wine.runhcs(&["delete", "--force", "one"]).ok();
});

/// The rights of an object, in Microsoft's notation.
#[track_caller]
fn rights(wine: &Wine, kind: &str, name: &str) -> String {
    probe(wine, &["descriptor", kind, name])
}

/// Keys have what their parents hand down. Wine hands nothing down, so what can be seen is that the
/// command gives no key rights of its own, and leaves those that are there.
#[test]
fn keys_have_no_rights_of_their_own() {
    Wine::run("rights of keys", |wine| {
        let root = wine.registry_root();
        // Not what a key has by itself, so that it can be told from that.
        let handed = "D:P(A;CI;KA;;;SY)(A;CI;KA;;;BA)(A;CI;KR;;;BG)";
        probe(wine, &["hand-down", &root, handed]);
        let plain = rights(wine, "key", r"SOFTWARE\Microsoft");
        assert_ne!(plain, handed);
        wine.new_container(&["create"], &Kind::Argon.bundle(wine, "one"), "one").ok();
        assert_eq!(rights(wine, "key", &root), handed);
        assert_eq!(rights(wine, "key", &format!(r"{root}\one")), plain);
        wine.runhcs(&["delete", "--force", "one"]).ok();
    });
}

/// All rights of an object for the system and the administrators, and none for anybody else.
const ADMINISTRATORS: &str = "D:P(A;;GA;;;SY)(A;;GA;;;BA)";

in_all!(pipes_are_the_administrators, |wine: &Wine, kind: Kind| {
    wine.new_container(&["create"], &kind.lasting(wine, "one"), "one").ok();
    let record = wine.stored("one", "record");
    let unique_id = record["unique_id"].as_str().unwrap();
    let prefix = r"\\.\pipe\ProtectedPrefix\Administrators\runhcs-";
    let mut pipes = vec![format!("{prefix}shim-{unique_id}")];
    if kind != Kind::Argon {
        pipes.push(format!("{prefix}vm-{unique_id}"));
    }
    for pipe in &pipes {
        assert_eq!(rights(wine, "pipe", pipe), ADMINISTRATORS);
    }
    wine.runhcs(&["delete", "--force", "one"]).ok();
    // With the shims their pipes are gone.
    eventually(|| wine.shims().is_empty(), || format!("{:?}", wine.shims()));
    for pipe in &pipes {
        let mut command = wine.command("windows-probe.exe");
        command.args(["descriptor", "pipe", pipe]);
        wine.finish(command).refused("open the pipe");
    }
});

#[test]
fn locks_are_the_administrators() {
    Wine::run("rights of locks", |wine| {
        // A lock is there as long as a command has it, and this one is kept waiting.
        wine.sim.faults(&["HcsCreateComputeSystem:hang"]).unwrap();
        let path = windows_path(Kind::Argon.bundle(wine, "one").path());
        let mut command = wine.runhcs_command(&["create", "--bundle", &path, "one"]);
        command.env("RUNHCS_DEADLINE", "8000");
        let (child, files) = wine.spawn(command);
        let mut calls = Vec::new();
        let waits = || {
            calls.extend(wine.calls());
            calls.iter().any(|call| call.result.is_none())
        };
        eventually(waits, || "the creation doesn't come to the call that hangs".to_owned());
        // The store calls it by a digest of the entry's name.
        let name = format!(r"{}\one", wine.token).to_lowercase();
        let lock = format!(r"Global\runhcs-{}", sha256(&name));
        assert_eq!(rights(wine, "mutex", &lock), ADMINISTRATORS);
        wine.wait(child, files).refused("not finished in time");
    });
}

/// The store's names for what is not to be read.
pub fn sha256(text: &str) -> String {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_once(' ').unwrap().0.to_owned()
}
