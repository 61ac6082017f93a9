//! What callers of runc rely on, beyond what the specification says; found by running runc's own
//! integration tests (docs/conformance.md).

use runhcs_tests::{Bundle, Harness, Isolation, in_both};
use serde_json::{Value, json};

/// A container that sleeps.
fn sleeping(h: &Harness, change: impl FnOnce(&mut Value)) {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]).edit(change);
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
}

fn run(h: &Harness, name: &str, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let bundle = Bundle::new(h, name, &["sh", "-c", script]).edit(change);
    h.new_container(&["run"], &bundle, name).ok().stdout
}

in_both!(variables_are_there_once_and_home_is_looked_up, |h: &Harness| {
    let said = run(h, "box", "env | sort", |config| {
        config["process"]["env"] = json!(["PATH=/bin", "ONE=1", "HOME=/x", "ONE=2", "HOME="]);
    });
    let listed: Vec<&str> = said.lines().filter(|line| !line.starts_with("PWD=")).collect();
    assert_eq!(
        listed.iter().filter(|line| line.starts_with("ONE=")).collect::<Vec<_>>(),
        [&"ONE=2"]
    );
    assert!(listed.contains(&"HOME=/"), "{said}");
});

in_both!(filters_older_than_the_calls_that_find_programs_are_no_obstacle, |h: &Harness| {
    let denied = |names: &[&str]| {
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ERRNO" }]
        })
    };
    for (name, calls) in
        [("new", &["faccessat2"][..]), ("all", &["faccessat2", "faccessat", "access"])]
    {
        let said = run(h, name, "echo fine", |config| {
            // Without it the filter is there before the program is looked for.
            config["process"]["noNewPrivileges"] = json!(false);
            config["linux"]["seccomp"] = denied(calls);
        });
        assert_eq!(said, "fine\n", "{name}");
        h.runhcs(&["delete", "--force", name]).ok();
    }
});

in_both!(a_dev_may_be_read_only, |h: &Harness| {
    let said =
        run(h, "box", "grep ' /dev ' /proc/mounts; echo x >/dev/null && echo fine", |config| {
            for mount in config["mounts"].as_array_mut().unwrap() {
                if mount["destination"] == "/dev" {
                    mount["options"].as_array_mut().unwrap().push(json!("ro"));
                }
            }
        });
    assert!(said.contains(" ro,") && said.ends_with("fine\n"), "{said}");
});

in_both!(a_root_has_the_propagation_that_is_asked_for, |h: &Harness| {
    for (name, expected) in [
        ("shared", " shared:"),
        ("rshared", " shared:"),
        ("unbindable", " unbindable"),
        ("slave", " /"),
    ] {
        let said = run(h, name, "grep ' / r' /proc/self/mountinfo", |config| {
            config["linux"]["rootfsPropagation"] = json!(name);
        });
        assert!(said.contains(expected), "{name}: {said}");
    }
});

in_both!(a_tmpfs_looks_like_the_directory_that_it_covers, |h: &Harness| {
    let script = "stat -c %a /tmp /new /own";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        for (destination, options) in
            [("/tmp", json!(["nosuid"])), ("/new", json!([])), ("/own", json!(["mode=700"]))]
        {
            mounts.push(json!({
                "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options
            }));
        }
    });
    let tmp = bundle.path().join("rootfs/tmp");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o710);
    std::fs::set_permissions(&tmp, mode).unwrap();
    let said = h.new_container(&["run"], &bundle, "box").ok().stdout;
    assert_eq!(said, "710\n1777\n700\n");
});

#[test]
fn a_proc_that_is_a_symbolic_link_is_refused() {
    Harness::run(Isolation::Process, "a_proc_that_is_a_symbolic_link_is_refused", |h| {
        for name in ["proc", "sys"] {
            let bundle = Bundle::new(h, name, &["true"]);
            let path = bundle.path().join("rootfs").join(name);
            std::fs::remove_dir(&path).unwrap();
            std::os::unix::fs::symlink("/elsewhere", &path).unwrap();
            h.new_container(&["run"], &bundle, name)
                .refused("must be mounted on ordinary directory");
        }
    });
}

#[test]
fn a_failed_exec_has_a_code_of_its_own() {
    Harness::run(Isolation::Process, "a_failed_exec_has_a_code_of_its_own", |h| {
        sleeping(h, |_| {});
        assert_eq!(h.runhcs(&["exec", "box", "sh", "-c", "exit 42"]).code, 42);
        let nowhere = ["exec", "--pid-file", "/nonexistent/pid", "box", "true"];
        assert_eq!(h.runhcs(&nowhere).code, 255);
        h.runhcs(&["pause", "box"]).ok();
        let refused = h.runhcs(&["exec", "box", "true"]);
        assert_eq!(refused.code, 255);
        assert!(refused.stderr.contains("--ignore-paused"), "{refused:?}");
        // It begins when the container goes on.
        let (child, files) =
            h.spawn(h.command(&["exec", "--ignore-paused", "box", "echo", "late"]));
        h.runhcs(&["resume", "box"]).ok();
        assert_eq!(runhcs_tests::wait(child, files).ok().stdout, "late\n");
        h.runhcs(&["delete", "--force", "box"]).ok();
    });
}

#[test]
fn further_processes_can_be_in_groups_below() {
    Harness::run(Isolation::Process, "further_processes_can_be_in_groups_below", |h| {
        sleeping(h, |config| {
            for mount in config["mounts"].as_array_mut().unwrap() {
                if mount["type"] == "cgroup" {
                    mount["options"].as_array_mut().unwrap().retain(|option| option != "ro");
                }
            }
        });
        let exec = |group: &str, script: &str| {
            h.runhcs(&["exec", "--cgroup", group, "box", "sh", "-c", script])
        };
        let own = exec("/", "cat /proc/self/cgroup").ok().stdout;
        if own.lines().count() == 1 {
            // Version 2.
            exec("/", "mkdir /sys/fs/cgroup/below").ok();
            let found = exec("below", "cat /proc/self/cgroup").ok().stdout;
            assert!(found.trim().ends_with("/below"), "{found}");
        } else {
            assert!(own.contains(":memory:") && own.contains("0::"), "{own}");
            exec("/", "mkdir /sys/fs/cgroup/memory/below").ok();
            let found = exec("memory:below", "cat /proc/self/cgroup").ok().stdout;
            for line in found.lines() {
                assert_eq!(line.contains(":memory:"), line.ends_with("/box/below"), "{found}");
            }
            let unknown = exec("nonsense:below", "true");
            assert!(unknown.stderr.contains("unknown controller nonsense"), "{unknown:?}");
        }
        for (group, why) in [("..", "bad sub cgroup path"), ("missing", "o such file or directory")]
        {
            let refused = exec(group, "true");
            assert_eq!(refused.code, 255, "{refused:?}");
            assert!(refused.stderr.contains(why), "{refused:?}");
        }
        h.runhcs(&["delete", "--force", "box"]).ok();
    });
}

#[test]
fn killing_a_container_in_the_hosts_pid_namespace_kills_all() {
    let name = "killing_a_container_in_the_hosts_pid_namespace_kills_all";
    Harness::run(Isolation::Process, name, |h| {
        sleeping(h, |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "pid");
        });
        h.runhcs(&["exec", "--detach", "box", "sleep", "1001"]).ok();
        h.runhcs(&["kill", "box", "0"]).ok();
        h.runhcs(&["kill", "box", "KILL"]).ok();
        h.wait_status("box", "stopped");
        let none = || h.runhcs(&["ps", "--format", "json", "box"]).stdout == "[]\n";
        runhcs_tests::eventually(none, || format!("{:?}", h.runhcs(&["ps", "box"])));
        h.runhcs(&["kill", "box", "0"]).refused("container not running");
        h.runhcs(&["kill", "--all", "box", "0"]).ok();
        h.runhcs(&["delete", "box"]).ok();
    });
}

#[test]
fn hooks_have_the_surroundings_that_runc_gives_them() {
    Harness::run(Isolation::Process, "hooks_have_the_surroundings_that_runc_gives_them", |h| {
        let told = h.path("told");
        let bundle = Bundle::new(h, "box", &["cat", "/made"]).edit(|config| {
            config["process"]["env"] = json!(["PATH=/bin", "WHO=me"]);
            let shell = |script: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
            config["hooks"] = json!({
                // runhcs's own environment.
                "createRuntime": shell(&format!("echo $WHO > {}", told.display())),
                // The root file system's directory.
                "createContainer": shell("echo first $WHO > made"),
                // The program's environment.
                "startContainer": shell("echo $WHO >> /made"),
            });
        });
        let path = bundle.path().to_str().unwrap();
        let mut run = h.command(&["run", "--bundle", path, "box"]);
        run.env("WHO", "the caller");
        assert_eq!(h.finish(run).ok().stdout, "first\nme\n");
        assert_eq!(std::fs::read_to_string(&told).unwrap(), "the caller\n");
        let failing = bundle.edit(|config| {
            let hook = |path: &str| json!({ "path": path });
            config["hooks"] = json!({ "createRuntime": [hook("/bin/true"), hook("/bin/false")] });
        });
        let failed = h.new_container(&["create"], &failing, "box");
        failed.refused("error running createRuntime hook #1");
    });
}

#[test]
fn json_has_runcs_order() {
    Harness::run(Isolation::Process, "json_has_runcs_order", |h| {
        sleeping(h, |_| {});
        let list = h.runhcs(&["list", "--format", "json"]).ok().stdout;
        let order = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"];
        let places: Vec<_> = order.iter().map(|key| list.find(&format!("\"{key}\":"))).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{list}");
        let stats = h.runhcs(&["events", "--stats", "box"]).ok().stdout;
        assert!(stats.starts_with("{\"type\":\"stats\",\"id\":\"box\",\"data\":{"), "{stats}");
        h.runhcs(&["delete", "--force", "box"]).ok();
        let mut elsewhere = std::process::Command::new(h.program());
        elsewhere.args(["--root", "/nonexistent", "list"]);
        h.finish(elsewhere).refused("/nonexistent");
    });
}

#[test]
fn a_waiting_container_holds_nothing_but_its_fifo() {
    Harness::run(Isolation::Process, "a_waiting_container_holds_nothing_but_its_fifo", |h| {
        let bundle = Bundle::new(h, "box", &["true"]);
        h.new_container(&["create"], &bundle, "box").ok();
        let directory = format!("/proc/{}/fd", h.state("box")["pid"]);
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
            let target = std::fs::read_link(entry.path()).unwrap();
            // The second is the directory of procfs by which it opens the FIFO.
            let own = ["exec.fifo", "fd"].iter().any(|name| target.ends_with(name));
            assert!(number < 3 || own, "{number}: {}", target.display());
        }
        h.runhcs(&["delete", "--force", "box"]).ok();
    });
}

#[test]
fn unknown_capabilities_take_a_warning_only() {
    Harness::run(Isolation::Process, "unknown_capabilities_take_a_warning_only", |h| {
        let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
            config["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_TO_BE"]);
        });
        h.new_container(&["run"], &bundle, "box").ok();
        let log = std::fs::read_to_string(h.path("log")).unwrap();
        assert!(log.contains("unavailable capabilities: CAP_TO_BE"), "{log}");
    });
}

in_both!(signals_that_the_caller_ignores_are_not_ignored_inside, |h: &Harness| {
    let ask = "grep -E 'SigIgn|SigBlk' /proc/self/status";
    let bundle = Bundle::new(h, "box", &["sh", "-c", &format!("{ask}; exec sleep 1000")]);
    let deaf = |command: std::process::Command| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "trap '' HUP INT QUIT USR1 TERM; exec \"$@\"", "sh"]);
        shell.arg(command.get_program()).args(command.get_args());
        shell.env("RUNHCS_E2E", &h.token).env("TMPDIR", h.path("tmp"));
        shell
    };
    let path = bundle.path().to_str().unwrap();
    let [flag, isolation] = h.flag();
    let run = ["run", "--detach", flag, isolation, "--bundle", path, "box"];
    let (mut child, files) = h.spawn(deaf(h.command(&run)));
    assert!(child.wait().unwrap().success());
    let none = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";
    let said = || std::fs::read_to_string(&files.0).unwrap();
    runhcs_tests::eventually(|| said() == none, said);
    let exec = h
        .finish(deaf(h.command(&[
            "exec",
            "box",
            "grep",
            "-E",
            "SigIgn|SigBlk",
            "/proc/self/status",
        ])))
        .ok();
    assert_eq!(exec.stdout, none);
    h.runhcs(&["delete", "--force", "box"]).ok();
});
