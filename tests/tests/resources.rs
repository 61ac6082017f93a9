//! Limits, their change, and what is used, from the command line, in both isolations.

use runhcs_tests::config::{in_user_namespace, run_limited};
use runhcs_tests::{Bundle, Harness, Isolation, eventually, in_both, wait};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// A script that prints a limit as the container's own processes see it, in cgroup version 2 (in
/// the VM) and version 1.
fn own_limit(v2: &str, v1_controller: &str, v1: &str) -> String {
    format!("cat /sys/fs/cgroup/{v2} 2>/dev/null || cat /sys/fs/cgroup/{v1_controller}/{v1}")
}

fn read(h: &Harness, v2: &str, controller: &str, v1: &str) -> String {
    let script = own_limit(v2, controller, v1);
    h.runhcs(&["exec", "box", "sh", "-c", &script]).ok().stdout.trim().to_owned()
}

in_both!(limits_are_set_and_changed, |h: &Harness| {
    run_limited(h, &json!({ "memory": { "limit": 64 * MIB }, "pids": { "limit": 50 } }));
    let memory = || read(h, "memory.max", "memory", "memory.limit_in_bytes");
    let pids = || read(h, "pids.max", "pids", "pids.max");
    assert_eq!((memory(), pids()), ((64 * MIB).to_string(), "50".to_owned()));
    h.runhcs(&["update", "--memory", "96M", "--pids-limit", "70", "box"]).ok();
    assert_eq!((memory(), pids()), ((96 * MIB).to_string(), "70".to_owned()));
    // The quota stays what it is when the period changes, and the other way round.
    h.runhcs(&["update", "--cpu-quota", "30000", "--cpu-period", "60000", "box"]).ok();
    h.runhcs(&["update", "--cpu-quota", "20000", "box"]).ok();
    let quota = read(h, "cpu.max", "cpu", "cpu.cfs_quota_us");
    let period = read(h, "cpu.max", "cpu", "cpu.cfs_period_us");
    let expected = match h.isolation {
        Isolation::Vm => ["20000 60000", "20000 60000"],
        Isolation::Process => ["20000", "60000"],
    };
    assert_eq!([quota.as_str(), period.as_str()], expected);
    let file = h.path("resources.json");
    std::fs::write(&file, json!({ "pids": { "limit": 80 } }).to_string()).unwrap();
    let file = file.to_str().unwrap();
    // As with runc, a file is all that counts.
    h.runhcs(&["update", "--memory", "1", "--resources", file, "box"]).ok();
    assert_eq!((memory(), pids()), ((96 * MIB).to_string(), "80".to_owned()));
    h.runhcs(&["delete", "--force", "box"]).ok();
});

in_both!(bad_limits_are_refused_by_name, |h: &Harness| {
    run_limited(h, &json!({}));
    let update = |options: &[&str], message: &str| {
        h.runhcs(&[&["update"], options, &["box"]].concat()).refused(message);
    };
    update(&["--memory", "lots"], "lots");
    update(&["--pids-limit", "many"], "many");
    update(&["--blkio-weight", "5"], "linux.resources.blockIO.weight");
    update(&["--cpu-idle", "2"], "linux.resources.cpu.idle");
    update(&["--memory", "64M", "--memory-swap", "32M"], "linux.resources.memory.swap");
    update(&["--l3-cache-schema", "L3:0=f"], "Intel RDT");
    update(&["--resources", "/nonexistent"], "/nonexistent");
    let file = h.path("resources.json");
    std::fs::write(&file, r#"{"memory":{"limit":"64M"}}"#).unwrap();
    update(&["--resources", file.to_str().unwrap()], "memory.limit");
    h.runhcs(&["update", "--pids-limit", "5", "nobody"]).refused("nobody does not exist");
    h.runhcs(&["kill", "box", "KILL"]).ok();
    h.wait_status("box", "stopped");
    update(&["--pids-limit", "5"], "cannot update container box that is stopped");
    h.runhcs(&["events", "--stats", "box"]).refused("container with id box is not running");
    h.runhcs(&["delete", "box"]).ok();
});

in_both!(statistics_are_runcs, |h: &Harness| {
    run_limited(h, &json!({ "memory": { "limit": 64 * MIB }, "pids": { "limit": 50 } }));
    h.runhcs(&["exec", "box", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]).ok();
    let line = h.runhcs(&["events", "--stats", "box"]).ok().stdout;
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!("box")));
    let data = &event["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 64 * MIB, "{line}");
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{line}");
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 1_000_000, "{line}");
    assert_eq!(data["pids"], json!({ "current": 1, "limit": 50 }), "{line}");
    h.runhcs(&["delete", "--force", "box"]).ok();
});

in_both!(events_tell_of_exhausted_memory_and_end_with_the_container, |h: &Harness| {
    run_limited(h, &json!({ "memory": { "limit": 32 * MIB, "swap": 32 * MIB } }));
    let (events, files) = h.spawn(h.command(&["events", "--interval", "200ms", "box"]));
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&files.0).unwrap();
        let whole = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        whole.collect()
    };
    let count = |kind: &str| lines().iter().filter(|line| line["type"] == kind).count();
    eventually(|| count("stats") >= 2, || format!("{:?}", lines()));
    assert_eq!(count("oom"), 0);
    // It keeps what it may have to print in memory.
    let outcome = h.runhcs(&["exec", "box", "tail", "-c", "100000000", "/dev/zero"]);
    assert_ne!(outcome.code, 0, "{outcome:?}");
    eventually(|| count("oom") >= 1, || format!("{outcome:?} {:?}", lines()));
    h.runhcs(&["kill", "box", "KILL"]).ok();
    assert_eq!(wait(events, files.clone()).code, 0);
    h.runhcs(&["delete", "box"]).ok();
});

/// Version 2 is in the guest.
#[test]
fn a_user_may_manage_the_groups_that_it_can_write() {
    Harness::run(Isolation::Vm, "own groups", |h| {
        let script =
            "cd /sys/fs/cgroup && mkdir own && echo $$ > own/cgroup.procs && cat /proc/self/cgroup
            echo +pids > cgroup.subtree_control && ls own/pids.max
            echo 1 2>/dev/null > memory.max || echo not its own limits";
        for user_namespace in [false, true] {
            let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
                config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
                let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.retain(|namespace| namespace["type"] != "cgroup");
                namespaces.push(json!({ "type": "cgroup" }));
                if user_namespace {
                    in_user_namespace(config, 100_000, 65536);
                }
                for mount in config["mounts"].as_array_mut().unwrap() {
                    if mount["type"] == "cgroup" {
                        mount["options"] = json!(["rw", "nosuid", "nodev", "noexec"]);
                    }
                }
            });
            std::fs::set_permissions(
                h.path(""),
                std::os::unix::fs::PermissionsExt::from_mode(0o755),
            )
            .unwrap();
            let mut chowned = std::process::Command::new("chown");
            chowned.args(["-R", "100000:100000"]).arg(bundle.path().join("rootfs"));
            assert!(chowned.status().unwrap().success());
            let outcome = h.new_container(&["run"], &bundle, "box").ok();
            let expected = "0::/own\nown/pids.max\nnot its own limits\n";
            assert_eq!(outcome.stdout, expected, "{user_namespace}: {outcome:?}");
            std::fs::remove_dir_all(bundle.path()).unwrap();
        }
    });
}
