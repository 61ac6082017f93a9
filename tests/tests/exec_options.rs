//! What a further process is given by options of `exec`, and descriptors that are kept for a
//! process.

use std::process::Command;

use runhcs_tests::{Bundle, Harness, Isolation, Outcome, in_both};
use serde_json::json;

in_both!(options_add_to_what_the_container_has, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]).edit(|config| {
        config["process"]["noNewPrivileges"] = json!(false);
        config["process"]["user"]["additionalGids"] = json!([5]);
        config["process"]["capabilities"] = json!({
            "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
        });
    });
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    let status = |options: &[&str]| {
        let fields = "^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|Groups|NoNewPrivs):";
        let program = ["box", "grep", "-E", fields, "/proc/self/status"];
        h.runhcs(&[&["exec"], options, &program].concat()).ok().stdout
    };
    let has = |shown: &str, lines: &[&str]| {
        for line in lines {
            assert!(shown.lines().any(|found| found.trim_end() == *line), "{line:?}: {shown}");
        }
    };
    let none = "0000000000000000";
    has(&status(&[]), &["CapEff:\t0000000000000020", "Groups:\t5", "NoNewPrivs:\t0"]);
    // chown and kill are 0 and 5.
    has(
        &status(&["--cap", "CHOWN"]),
        &[
            "CapBnd:\t0000000000000021",
            "CapPrm:\t0000000000000021",
            "CapEff:\t0000000000000021",
            &format!("CapInh:\t{none}"),
            &format!("CapAmb:\t{none}"),
        ],
    );
    has(&status(&["--additional-gids", "7", "-g", "8"]), &["Groups:\t5 7 8"]);
    has(&status(&["--no-new-privs"]), &["NoNewPrivs:\t1"]);
    // They are of that process alone.
    has(&status(&[]), &["CapBnd:\t0000000000000020", "Groups:\t5", "NoNewPrivs:\t0"]);
    h.runhcs(&["exec", "--cap", "NONSENSE", "box", "true"]).exec_refused("--cap \"NONSENSE\"");
    h.runhcs(&["delete", "--force", "box"]).ok();
});

in_both!(a_document_says_all_of_a_process, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    let script = "grep -E '^(Uid|Gid|Groups|CapEff):' /proc/self/status; pwd; ulimit -n; ionice
        cat /proc/self/oom_score_adj; cut -d' ' -f19,41 /proc/self/stat; env | grep ONLY; umask";
    let process = json!({
        "args": ["sh", "-c", script], "cwd": "/tmp", "env": ["PATH=/bin", "ONLY=this"],
        "user": { "uid": 3, "gid": 4, "additionalGids": [5], "umask": 0o77 },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 55, "hard": 66 }],
        "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 6 },
        "scheduler": { "policy": "SCHED_BATCH", "nice": 7 },
        "oomScoreAdj": 321,
    });
    let file = h.path("process.json");
    std::fs::write(&file, process.to_string()).unwrap();
    let exec = h.runhcs(&["exec", "--process", file.to_str().unwrap(), "box"]).ok();
    let expected = "Uid:\t3\t3\t3\t3\nGid:\t4\t4\t4\t4\nGroups:\t5 \nCapEff:\t0000000000000000\n\
        /tmp\n55\nbest-effort: prio 6\n321\n7 3\nONLY=this\n0077\n";
    assert_eq!(exec.stdout, expected);
    h.runhcs(&["delete", "--force", "box"]).ok();
});

/// A kernel that has the module is somebody else's machine; without it nobody is confined less than
/// was asked for.
#[test]
fn a_label_that_can_not_be_had_is_refused() {
    Harness::run(Isolation::Process, "labels", |h| {
        let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
        h.new_container(&["run", "--detach"], &bundle, "box").ok();
        let has = |path: &str| std::path::Path::new(path).exists();
        if !has("/sys/module/apparmor") {
            let exec = h.runhcs(&["exec", "--apparmor", "no-such-profile", "box", "true"]);
            exec.exec_refused("process.apparmorProfile");
        }
        if !has("/sys/fs/selinux/enforce") {
            let exec = h.runhcs(&["exec", "--process-label", "a:b:c:s0", "box", "true"]);
            exec.exec_refused("process.selinuxLabel");
            let labelled = Bundle::new(h, "labelled", &["true"])
                .edit(|config| config["process"]["selinuxLabel"] = json!("a:b:c:s0"));
            h.new_container(&["create"], &labelled, "labelled").refused("process.selinuxLabel");
        }
        h.runhcs(&["delete", "--force", "box"]).ok();
    });
}

/// The command behind a shell that opens descriptors; its output.
fn with_descriptors(h: &Harness, open: &str, arguments: &[&str]) -> Outcome {
    let inner = h.command(arguments);
    let mut shell = Command::new("sh");
    let script = format!("{open}; exec \"$@\"");
    shell.args(["-c", &script, "-"]).arg(inner.get_program()).args(inner.get_args());
    shell.current_dir(h.path("")).env("RUNHCS_E2E", &h.token);
    h.finish(shell)
}

#[test]
fn descriptors_are_kept_if_they_are_to_be() {
    Harness::run(Isolation::Process, "descriptors", |h| {
        std::fs::write(h.path("file"), "kept\n").unwrap();
        let open = "exec 3<file 4<file 5<file";
        // Of the three, the last is not to be kept.
        let script = "cat <&3; test -e /proc/self/fd/4 && test ! -e /proc/self/fd/5 && echo both";
        let bundle = Bundle::new(h, "box", &["sh", "-c", script]);
        let path = bundle.path().to_str().unwrap();
        let run = |options: &[&str]| {
            with_descriptors(h, open, &[&["run", "--bundle", path], options, &["box"]].concat())
        };
        assert_eq!(run(&["--preserve-fds", "2"]).ok().stdout, "kept\nboth\n");
        let sleeper = Bundle::new(h, "sleeper", &["sleep", "1000"]);
        h.new_container(&["run", "--detach"], &sleeper, "sleeper").ok();
        let exec = |options: &[&str]| {
            let program = ["sleeper", "sh", "-c", script];
            with_descriptors(h, open, &[&["exec"], options, &program].concat())
        };
        assert_eq!(exec(&["--preserve-fds", "2"]).ok().stdout, "kept\nboth\n");
        // Others would be the runtime's own.
        let missing = "--preserve-fds 4: descriptor 6 is not open";
        exec(&["--preserve-fds", "4"]).exec_refused(missing);
        run(&["--preserve-fds", "4"]).refused(missing);
        h.runhcs(&["delete", "--force", "sleeper"]).ok();
    });
}

#[test]
fn sockets_of_systemds_are_inits() {
    Harness::run(Isolation::Process, "sockets", |h| {
        std::fs::write(h.path("file"), "socket\n").unwrap();
        std::fs::write(h.path("other"), "other\n").unwrap();
        let script = "echo $LISTEN_FDS,$LISTEN_PID; cat <&3; cat <&4; ls /proc/self/fd | wc -l";
        let bundle = Bundle::new(h, "box", &["sh", "-c", script]);
        let path = bundle.path().to_str().unwrap();
        let run = |variables: &str| {
            let open = format!("export {variables}; exec 3<file 4<other");
            with_descriptors(h, &open, &["run", "--preserve-fds", "1", "--bundle", path, "box"])
        };
        // The shell becomes the command.
        let told = run("LISTEN_FDS=1 LISTEN_PID=$$").ok().stdout;
        assert_eq!(told, "1,1\nsocket\nother\n6\n");
        // They are of a service that this command is a child of.
        let others = run("LISTEN_FDS=1 LISTEN_PID=1");
        assert!(others.stdout.starts_with(",\nsocket\n"), "{others:?}");
        assert!(!others.stdout.contains("other"), "{others:?}");
        run("LISTEN_FDS=x LISTEN_PID=$$").refused("LISTEN_FDS=\"x\"");
        run("LISTEN_FDS=3 LISTEN_PID=$$").refused("LISTEN_FDS=3: descriptor 5 is not open");
    });
}
