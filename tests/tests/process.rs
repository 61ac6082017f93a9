//! What a container's process is given, from the command line, in both isolations.

use runhcs_tests::config::run_script;
use runhcs_tests::{Bundle, Harness, Isolation, in_both};
use serde_json::{Value, json};

/// A field of `/proc/self/stat` by its number (proc_pid_stat(5)); the command's name has no space.
fn stat(field: usize) -> String {
    format!("cut -d' ' -f{field} /proc/self/stat")
}

in_both!(scheduling_is_as_asked, |h: &Harness| {
    // Fields 19 and 41: nice, policy.
    let script = format!("{}; {}", stat(19), stat(41));
    let policy = |scheduler: Value| {
        run_script(h, &script, |config| config["process"]["scheduler"] = scheduler)
    };
    assert_eq!(policy(json!({ "policy": "SCHED_BATCH", "nice": 5 })), "5\n3\n");
    let flags = json!(["SCHED_FLAG_RESET_ON_FORK"]);
    // What it forks has no better priority than usual, and `cut` is forked.
    assert_eq!(policy(json!({ "policy": "SCHED_BATCH", "nice": -3, "flags": flags })), "0\n3\n");
    assert_eq!(policy(json!({ "policy": "SCHED_IDLE" })), "0\n5\n");
    assert_eq!(policy(json!({ "policy": "SCHED_OTHER", "nice": 11 })), "11\n0\n");
    // On the host, control groups of version 1 may leave a container no time for these.
    if h.isolation == Isolation::Vm {
        let fifo = json!({ "policy": "SCHED_FIFO", "priority": 7 });
        assert_eq!(policy(fifo), "0\n1\n");
        assert_eq!(policy(json!({ "policy": "SCHED_RR", "priority": 9 })), "0\n2\n");
        let (runtime, deadline) = (2_000_000, 20_000_000);
        let deadline = json!({ "policy": "SCHED_DEADLINE", "runtime": runtime,
                               "deadline": deadline, "period": deadline });
        // A process with a deadline can't fork (sched(7)).
        let script = "read -r line </proc/self/stat; set -- $line; echo ${41}";
        let policy = run_script(h, script, |config| config["process"]["scheduler"] = deadline);
        assert_eq!(policy, "6\n");
    }
    let priority = run_script(h, "ionice", |config| {
        config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    });
    assert_eq!(priority, "best-effort: prio 6\n");
});

in_both!(a_further_process_runs_where_it_is_told_to, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]).edit(|config| {
        config["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "0" });
    });
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    let script = "grep Cpus_allowed_list /proc/self/status; grep Cpus_allowed_list /proc/1/status";
    let lines = h.runhcs(&["exec", "box", "sh", "-c", script]).ok().stdout;
    let cpus: Vec<&str> = lines.split_whitespace().filter(|w| !w.contains("Cpus")).collect();
    assert_eq!(cpus[0], "0", "{lines}");
    if h.isolation == Isolation::Process && std::thread::available_parallelism().unwrap().get() > 1
    {
        assert_ne!(cpus[1], "0", "init is not meant: {lines}");
    }
    // The last word is that of where it runs in the end; the first holds if there is no other.
    if h.isolation == Isolation::Process && std::thread::available_parallelism().unwrap().get() > 1
    {
        for (affinity, cpus) in [
            (json!({ "initial": "0", "final": "1" }), "1"),
            (json!({ "initial": "1" }), "1"),
            (json!({ "final": "0" }), "0"),
        ] {
            let process = json!({
                "args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/",
                "env": ["PATH=/bin"], "execCPUAffinity": affinity,
            });
            let file = h.path("process.json");
            std::fs::write(&file, process.to_string()).unwrap();
            let exec = h.runhcs(&["exec", "--process", file.to_str().unwrap(), "box"]).ok();
            assert_eq!(exec.stdout.split_whitespace().nth(1), Some(cpus), "{affinity}");
        }
    }
    // A process of its own says it better.
    let process = json!({
        "args": ["true"], "cwd": "/", "execCPUAffinity": { "final": "0-" }
    });
    let file = h.path("process.json");
    std::fs::write(&file, process.to_string()).unwrap();
    let outcome = h.runhcs(&["exec", "--process", file.to_str().unwrap(), "box"]);
    outcome.exec_refused("execCPUAffinity");
    h.runhcs(&["delete", "--force", "box"]).ok();
});

in_both!(a_32_bit_personality, |h: &Harness| {
    let machine = run_script(h, "uname -m", |config| {
        config["linux"]["personality"] = json!({ "domain": "LINUX32" });
    });
    assert_eq!(machine, "i686\n");
    let machine = run_script(h, "uname -m", |config| {
        config["linux"]["personality"] = json!({ "domain": "LINUX" });
    });
    assert_ne!(machine, "i686\n");
});

in_both!(memory_comes_from_the_nodes_that_are_asked_for, |h: &Harness| {
    let map = |policy: Value| {
        run_script(h, "head -n 1 /proc/self/numa_maps", |config| {
            config["linux"]["memoryPolicy"] = policy
        })
    };
    let bound = map(json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }));
    assert_eq!(bound.split_whitespace().nth(1), Some("bind=static:0"), "{bound}");
    let preferred = map(json!({ "mode": "MPOL_LOCAL" }));
    assert_eq!(preferred.split_whitespace().nth(1), Some("local"), "{preferred}");
    let mut rows = vec![
        ("MPOL_DEFAULT", "", json!([]), " default "),
        ("MPOL_PREFERRED", "0", json!([]), " prefer:0 "),
        ("MPOL_INTERLEAVE", "0", json!(["MPOL_F_RELATIVE_NODES"]), " interleave=relative:0 "),
        ("MPOL_PREFERRED_MANY", "0", json!([]), " prefer (many):0 "),
    ];
    // The guest's kernel may be older.
    if h.isolation == Isolation::Process {
        rows.push(("MPOL_BIND", "0", json!(["MPOL_F_NUMA_BALANCING"]), " bind=balancing:0 "));
        rows.push(("MPOL_WEIGHTED_INTERLEAVE", "0", json!([]), " weighted interleave:0 "));
    }
    for (mode, nodes, flags, shown) in rows {
        let printed = map(json!({ "mode": mode, "nodes": nodes, "flags": flags }));
        assert!(printed.contains(shown), "{mode}: {printed}");
    }
});

in_both!(clocks_of_a_time_namespace, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]).edit(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
        config["linux"]["timeOffsets"] =
            json!({ "boottime": { "secs": 1_000_000 }, "monotonic": { "secs": 5, "nanosecs": 7 } });
    });
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    let uptime = |line: String| -> f64 { line.split(' ').next().unwrap().parse().unwrap() };
    let inside = h.runhcs(&["exec", "box", "cat", "/proc/uptime"]).ok().stdout;
    assert!(uptime(inside) > 1_000_000.0);
    let offsets = h.runhcs(&["exec", "box", "cat", "/proc/1/timens_offsets"]).ok().stdout;
    let words: Vec<&str> = offsets.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "5", "7", "boottime", "1000000", "0"]);
    h.runhcs(&["delete", "--force", "box"]).ok();
    std::fs::remove_dir_all(bundle.path()).unwrap();
    // The next container has the host's clocks again.
    let after = run_script(h, "cat /proc/uptime", |_| {});
    assert!(uptime(after) < 1_000_000.0);
});

in_both!(home_is_the_users_own, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    let passwd = "root:x:0:0:root:/root-of-image:/bin/sh\nuser:x:7:7::/home/user:/bin/sh\n";
    std::fs::write(bundle.path().join("rootfs/etc/passwd"), passwd).unwrap();
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    let home = |user: &str, more: &[&str]| {
        let line = [&["exec", "--user", user], more, &["box", "sh", "-c", "echo $HOME"]].concat();
        h.runhcs(&line).ok().stdout
    };
    assert_eq!(home("0", &[]), "/root-of-image\n");
    assert_eq!(home("7", &[]), "/home/user\n");
    assert_eq!(home("8", &[]), "/\n");
    assert_eq!(home("7", &["--env", "HOME=/elsewhere"]), "/elsewhere\n");
    h.runhcs(&["delete", "--force", "box"]).ok();
    std::fs::remove_dir_all(bundle.path()).unwrap();
    // An image that would have its reader wait, or read for ever.
    for (make, name) in [("mkfifo etc/passwd", "fifo"), ("ln -s /dev/zero etc/passwd", "zero")] {
        let bundle = Bundle::new(h, name, &["sh", "-c", "echo $HOME"]);
        let mut shell = std::process::Command::new("sh");
        let made = shell.args(["-c", make]).current_dir(bundle.path().join("rootfs")).status();
        assert!(made.unwrap().success());
        assert_eq!(h.new_container(&["run"], &bundle, name).ok().stdout, "/\n");
    }
});

in_both!(what_cannot_be_is_named_by_its_field, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["true"]);
    let config = bundle.path().join("config.json");
    let good = std::fs::read_to_string(&config).unwrap();
    for (pointer, value, field) in [
        ("/process/scheduler", json!({ "policy": "SCHED_ISO" }), "process.scheduler.policy"),
        ("/process/scheduler", json!({ "policy": "SCHED_BEST" }), "process.scheduler.policy"),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_OTHER", "nice": 99 }),
            "process.scheduler.nice",
        ),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_RT", "priority": -1 }),
            "process.ioPriority.priority",
        ),
        ("/process/execCPUAffinity", json!({ "initial": "x" }), "process.execCPUAffinity.initial"),
        (
            "/linux/personality",
            json!({ "domain": "LINUX", "flags": ["X"] }),
            "linux.personality.flags",
        ),
        ("/linux/timeOffsets", json!({ "boottime": { "secs": 1 } }), "linux.timeOffsets"),
        ("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND" }), "linux.memoryPolicy.nodes"),
    ] {
        let mut edited: Value = serde_json::from_str(&good).unwrap();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        edited.pointer_mut(parent).unwrap()[name] = value;
        std::fs::write(&config, edited.to_string()).unwrap();
        h.new_container(&["create"], &bundle, "box").refused(field);
    }
});

in_both!(kernel_parameters_are_the_containers_own, |h: &Harness| {
    let script = "cd /proc/sys; cat kernel/shmmni net/ipv4/ip_forward kernel/domainname";
    let printed = run_script(h, script, |config| {
        config["linux"]["sysctl"] = json!({
            "kernel.shmmni": "77", "net/ipv4/ip_forward": "1", "kernel.domainname": "example"
        });
    });
    assert_eq!(printed, "77\n1\nexample\n");
});

#[test]
fn what_is_the_whole_hosts_is_refused_by_its_field() {
    Harness::run(Isolation::Process, "what_is_the_whole_hosts", |h| {
        let bundle = Bundle::new(h, "box", &["true"]);
        let config = bundle.path().join("config.json");
        let good: Value = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
        let no_ipc = |spec: &mut Value| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "ipc");
        };
        let has_apparmor = std::path::Path::new("/sys/module/apparmor").exists();
        for (pointer, name, value, field) in [
            ("/linux", "sysctl", json!({ "kernel.shmmni": "9" }), "linux.sysctl.kernel.shmmni"),
            ("/linux", "sysctl", json!({ "vm.swappiness": "9" }), "linux.sysctl.vm.swappiness"),
            ("/linux", "sysctl", json!({ "kernel.hostname": "x" }), "linux.sysctl.kernel.hostname"),
            ("/process", "apparmorProfile", json!("no-such-profile"), "process.apparmorProfile"),
        ] {
            if name == "apparmorProfile" && has_apparmor {
                continue;
            }
            let mut spec = good.clone();
            no_ipc(&mut spec);
            spec.pointer_mut(pointer).unwrap()[name] = value;
            std::fs::write(&config, spec.to_string()).unwrap();
            h.new_container(&["create"], &bundle, "box").refused(field);
        }
    });
}

in_both!(a_missing_working_directory_is_made_for_the_first_process_alone, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]).edit(|config| {
        config["process"]["cwd"] = json!("/made/late");
        config["root"]["readonly"] = json!(true);
    });
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    assert_eq!(h.runhcs(&["exec", "box", "sh", "-c", "pwd"]).ok().stdout, "/made/late\n");
    let exec = h.runhcs(&["exec", "--cwd", "/tmp/missing", "box", "true"]);
    exec.exec_refused("enter the working directory /tmp/missing: No such file or directory");
    h.runhcs(&["exec", "box", "sh", "-c", "! test -e /tmp/missing"]).ok();
    h.runhcs(&["delete", "--force", "box"]).ok();
});
