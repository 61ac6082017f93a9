//! What goes between the caller and a container's process: data, arguments, the end of either.

use std::fs::File;

use runhcs_tests::Outcome;
use runhcs_tests::wine::{Wine, program_path, windows_path};
use serde_json::json;

use crate::kinds::{Kind, in_all};

/// A program that says what it hears until that ends.
fn copier(kind: Kind) -> Vec<String> {
    match kind {
        Kind::Lcow => vec!["cat".into()],
        _ => vec![program_path("windows-probe.exe"), "copy".into()],
    }
}

/// Runs the command with a text as its standard input.
fn with_input(wine: &Wine, arguments: &[&str], text: &str) -> Outcome {
    let path = wine.path("input");
    std::fs::write(&path, text).unwrap();
    let mut command = wine.runhcs_command(arguments);
    command.stdin(File::open(path).unwrap());
    wine.finish(command)
}

in_all!(data_goes_both_ways, |wine: &Wine, kind: Kind| {
    // More than any buffer on the way has room for.
    let text: String = (0..60_000).map(|number| format!("{number}\n")).collect();
    let program = copier(kind);
    let bundle = kind.changed(wine, "one", |spec| spec["process"]["args"] = json!(program));
    let path = windows_path(bundle.path());
    let run = ["run", "--bundle", &path, "one"];
    for text in [text.as_str(), "", "no end of line"] {
        let outcome = with_input(wine, &run, text).ok();
        assert!(outcome.stdout == text, "{} of {} bytes", outcome.stdout.len(), text.len());
    }
    wine.new_container(&["run", "--detach"], &kind.lasting(wine, "one"), "one").ok();
    let mut exec = vec!["exec", "one"];
    exec.extend(program.iter().map(String::as_str));
    let outcome = with_input(wine, &exec, &text).ok();
    assert!(outcome.stdout == text, "{} of {} bytes", outcome.stdout.len(), text.len());
    if kind != Kind::Lcow {
        assert_eq!(outcome.stderr.trim_end(), "the input has ended");
    }
    wine.runhcs(&["delete", "--force", "one"]).ok();
});

in_all!(outputs_are_two, |wine: &Wine, kind: Kind| {
    let bundle = kind.changed(wine, "one", |spec| {
        spec["process"]["args"] = match kind {
            Kind::Lcow => json!(["sh", "-c", "echo out; err wrong; exit 9"]),
            _ => json!(["cmd", "/c", "echo out&echo wrong>&2&exit 9"]),
        };
    });
    let outcome = wine.new_container(&["run"], &bundle, "one");
    let error = outcome.stderr.trim_end();
    assert_eq!((outcome.code, outcome.stdout.as_str(), error), (9, "out\n", "wrong"));
});

/// A Windows program has a command line, from which it makes out its arguments.
fn arguments_arrive(wine: &Wine, kind: Kind) {
    let arguments = [
        "",
        "a b",
        "\"",
        "a\"b c",
        "\\",
        "a\\",
        "a b\\",
        "\\\\\"x y\\\\",
        "\t",
        "ä€",
        "%PATH%",
        "&",
    ];
    let program = program_path("windows-probe.exe");
    let bundle = kind.changed(wine, "one", |spec| {
        let all = [program.as_str(), "arguments"].into_iter().chain(arguments);
        spec["process"]["args"] = json!(all.collect::<Vec<_>>());
    });
    let said = wine.new_container(&["run"], &bundle, "one").ok().stdout;
    assert_eq!(said.lines().collect::<Vec<_>>(), arguments);
    // One that is given whole is taken as it is.
    let bundle = kind.changed(wine, "two", |spec| {
        let line = format!("\"{program}\" arguments a\"b c\"d  e");
        spec["process"].as_object_mut().unwrap().remove("args");
        spec["process"]["commandLine"] = line.into();
    });
    let said = wine.new_container(&["run"], &bundle, "two").ok().stdout;
    assert_eq!(said.lines().collect::<Vec<_>>(), ["ab cd", "e"]);
}

#[test]
fn arguments_arrive_on_the_host() {
    Wine::run("arguments argon", |wine| arguments_arrive(wine, Kind::Argon));
}

#[test]
fn arguments_arrive_in_a_windows_vm() {
    Wine::run("arguments xenon", |wine| arguments_arrive(wine, Kind::Xenon));
}
