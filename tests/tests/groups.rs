//! Control groups: limits that only the configuration has, what a system without a controller says
//! of them, and containers whose processes are on the run.

use runhcs_tests::config::{hook, limited, run_limited};
use runhcs_tests::{Bundle, Harness, Isolation, in_both};
use serde_json::{Value, json};

/// The number of a disk of this host.
fn disk() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let disks = std::fs::read_dir("/sys/block").unwrap().flatten();
    // Not one that is made of memory or of a file.
    let mut disks = disks.filter(|disk| disk.path().join("device").exists());
    let name = disks.next()?.file_name();
    let number = std::fs::metadata(std::path::Path::new("/dev").join(name)).ok()?.rdev();
    Some((rustix::fs::major(number), rustix::fs::minor(number)))
}

/// Runs containers with each of the limits; a control file below `/sys/fs/cgroup` has to have the
/// line.
fn check(h: &Harness, rows: &[(Value, &str, String)]) {
    let mut wrong = Vec::new();
    for (resources, file, line) in rows {
        let bundle = run_limited(h, resources);
        let shown = h.runhcs(&["exec", "box", "cat", &format!("/sys/fs/cgroup/{file}")]);
        if !shown.stdout.lines().any(|found| found == line) {
            wrong.push(format!("{resources}: {line:?} is not in {file}: {shown:?}"));
        }
        h.runhcs(&["delete", "--force", "box"]).ok();
        std::fs::remove_dir_all(bundle.path()).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn refused(h: &Harness, rows: &[(Value, &str)]) {
    for (resources, field) in rows {
        let bundle = limited(h, resources);
        let field = format!("linux.resources.{field}");
        h.new_container(&["create"], &bundle, "box").refused(&field);
        std::fs::remove_dir_all(bundle.path()).unwrap();
    }
}

#[test]
fn limits_of_version_1_are_set() {
    Harness::run(Isolation::Process, "version 1", |h| {
        if !std::path::Path::new("/sys/fs/cgroup/memory").exists() {
            return eprintln!("skipped: this system has no cgroup version 1");
        }
        let mut rows = vec![
            (
                json!({ "memory": { "disableOOMKiller": true } }),
                "memory/memory.oom_control",
                "oom_kill_disable 1".to_owned(),
            ),
            (json!({ "memory": { "swappiness": 3 } }), "memory/memory.swappiness", "3".to_owned()),
            (
                json!({ "memory": { "kernelTCP": 1 << 20 } }),
                "memory/memory.kmem.tcp.limit_in_bytes",
                "1048576".to_owned(),
            ),
        ];
        if let Some((major, minor)) = disk() {
            for (name, file, rate) in [
                ("throttleReadBpsDevice", "blkio/blkio.throttle.read_bps_device", 1 << 20),
                ("throttleWriteBpsDevice", "blkio/blkio.throttle.write_bps_device", 2 << 20),
                ("throttleReadIOPSDevice", "blkio/blkio.throttle.read_iops_device", 300),
                ("throttleWriteIOPSDevice", "blkio/blkio.throttle.write_iops_device", 400),
            ] {
                let limit = json!([{ "major": major, "minor": minor, "rate": rate }]);
                let line = format!("{major}:{minor} {rate}");
                rows.push((json!({ "blockIO": { name: limit } }), file, line));
            }
        }
        check(h, &rows);
        refused(
            h,
            &[
                (json!({ "unified": { "memory.high": "1" } }), "unified.memory.high"),
                (json!({ "memory": { "useHierarchy": false } }), "memory.useHierarchy"),
                (json!({ "rdma": { "mlx5_0": { "hcaHandles": 1 } } }), "rdma.mlx5_0"),
                (
                    json!({ "network": { "priorities": [{ "name": "nosuch", "priority": 1 }] } }),
                    "network.priorities[0]",
                ),
                (
                    json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": 4000, "minor": 0, "rate": 1 }] } }),
                    "blockIO.throttleReadBpsDevice[0]",
                ),
            ],
        );
    });
}

#[test]
fn limits_of_version_2_are_set() {
    Harness::run(Isolation::Vm, "version 2", |h| {
        let row =
            |resources: Value, file: &'static str, line: &str| (resources, file, line.to_owned());
        check(
            h,
            &[
                row(
                    json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] }),
                    "hugetlb.2MB.max",
                    "4194304",
                ),
                row(
                    json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] }),
                    "hugetlb.2MB.rsvd.max",
                    "4194304",
                ),
                row(json!({ "unified": { "memory.high": "50000000" } }), "memory.high", "49999872"),
                row(
                    json!({ "unified": { "pids.max": "33" }, "pids": { "limit": 44 } }),
                    "pids.max",
                    "33",
                ),
                row(json!({ "unified": { "cgroup.max.depth": "3" } }), "cgroup.max.depth", "3"),
            ],
        );
        refused(
            h,
            &[
                (json!({ "network": { "classID": 1 } }), "network.classID"),
                (
                    json!({ "network": { "priorities": [{ "name": "lo", "priority": 1 }] } }),
                    "network.priorities",
                ),
                (json!({ "memory": { "disableOOMKiller": true } }), "memory.disableOOMKiller"),
                (json!({ "memory": { "kernelTCP": 1 } }), "memory.kernelTCP"),
                (json!({ "cpu": { "realtimeRuntime": 1 } }), "cpu.realtimeRuntime"),
                (json!({ "blockIO": { "leafWeight": 10 } }), "blockIO.leafWeight"),
                (json!({ "unified": { "no.such": "1" } }), "unified.no.such"),
                (json!({ "unified": { "../x.y": "1" } }), "unified.../x.y"),
                (json!({ "rdma": { "mlx5_0": { "hcaHandles": 1 } } }), "rdma.mlx5_0"),
            ],
        );
    });
}

// With it, a change that would end processes isn't made (`memory.checkBeforeUpdate`).
in_both!(a_limit_below_what_is_used_is_refused_if_that_is_to_be_checked, |h: &Harness| {
    run_limited(h, &json!({ "memory": { "limit": 64 << 20, "swap": 64 << 20 } }));
    let file = h.path("resources.json");
    let resources = json!({ "memory": { "limit": 4096, "swap": 4096, "checkBeforeUpdate": true } });
    std::fs::write(&file, resources.to_string()).unwrap();
    let update = h.runhcs(&["update", "--resources", file.to_str().unwrap(), "box"]);
    update.refused("memory");
    assert_eq!(h.state("box")["status"], "running");
    let stats = h.runhcs(&["events", "--stats", "box"]).ok().stdout;
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 64 << 20);
    h.runhcs(&["delete", "--force", "box"]).ok();
});

// Processes that are each gone by the time that their pid is known: what is killed one by one
// would always leave the next one. Not in a pid namespace, whose end would end them all.
in_both!(kill_all_gets_processes_that_are_on_the_run, |h: &Harness| {
    let script = "fork-chain & echo ready >/ready; exec sleep 1000";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).with_program("fork-chain");
    let bundle = bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        // Who reaps them may be slow.
        config["linux"]["resources"]["pids"] = json!({ "limit": 8000 });
    });
    let verbs = [&["kill", "--all", "box", "KILL"][..], &["delete", "--force", "box"]];
    for verb in verbs.into_iter().cycle().take(if h.isolation == Isolation::Vm { 2 } else { 12 }) {
        h.new_container(&["run", "--detach"], &bundle, "box").ok();
        let ready = || h.runhcs(&["exec", "box", "cat", "/ready"]).stdout == "ready\n";
        runhcs_tests::eventually(ready, || "it does not run".into());
        // Of several looks each finds others; of a VM's only those are listed that are known here.
        let pids = || h.runhcs(&["ps", "--format", "json", "box"]).ok().stdout;
        let first = pids();
        let vm = h.isolation == Isolation::Vm;
        runhcs_tests::eventually(|| vm || pids() != first, pids);
        h.runhcs(verb).ok();
        if verb[0] == "kill" {
            h.wait_status("box", "stopped");
            // A signal that was sent arrives a moment later.
            runhcs_tests::eventually(|| pids() == "[]\n", pids);
            h.runhcs(&["delete", "box"]).ok();
        }
        std::fs::remove_file(bundle.path().join("rootfs/ready")).unwrap();
    }
});

in_both!(a_paused_container_does_nothing_until_it_is_resumed, |h: &Harness| {
    let script = "while true; do echo >>/count; sleep 0.05; done";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]);
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    let count = || std::fs::metadata(bundle.path().join("rootfs/count")).map_or(0, |m| m.len());
    runhcs_tests::eventually(|| count() > 2, || "it does not run".into());
    h.runhcs(&["pause", "box"]).ok();
    // Neither does a signal end it.
    h.runhcs(&["kill", "box", "TERM"]).ok();
    let before = count();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(count(), before);
    h.runhcs(&["resume", "box"]).ok();
    runhcs_tests::eventually(|| count() > before, || "it does not go on".into());
    h.runhcs(&["delete", "--force", "box"]).ok();
});

/// Which control group of a version 1 controller a process is in.
fn group_of(pid: &Value, controller: &str) -> String {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mut fields = groups.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
    fields.find(|fields| fields[1] == controller).unwrap()[2].to_owned()
}

#[test]
fn a_relative_path_begins_at_the_callers_group_and_an_absolute_one_at_the_root() {
    Harness::run(Isolation::Process, "paths", |h| {
        let hierarchy = std::path::Path::new("/sys/fs/cgroup/memory");
        if !hierarchy.exists() {
            return eprintln!("skipped: this system has no cgroup version 1");
        }
        let own = format!("runhcs-e2e/{}", h.token);
        let caller = hierarchy.join(&own).join("caller");
        std::fs::create_dir_all(&caller).unwrap();
        for (path, in_memory, in_pids) in [
            (format!("/{own}/box"), format!("/{own}/box"), format!("/{own}/box")),
            (format!("{own}/box"), format!("/{own}/caller/{own}/box"), format!("/{own}/box")),
        ] {
            let bundle = Bundle::new(h, "box", &["sleep", "1000"])
                .edit(|config| config["linux"]["cgroupsPath"] = json!(path));
            let inner =
                h.command(&["run", "--detach", "--bundle", bundle.path().to_str().unwrap(), "box"]);
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", "echo $$ >$GROUP && exec \"$@\"", "-"]);
            shell.arg(inner.get_program()).args(inner.get_args());
            shell.env("GROUP", caller.join("cgroup.procs")).env("RUNHCS_E2E", &h.token);
            h.finish(shell).ok();
            let pid = &h.state("box")["pid"];
            let found = [group_of(pid, "memory"), group_of(pid, "pids")];
            assert_eq!(found, [in_memory, in_pids], "{path}");
            h.runhcs(&["delete", "--force", "box"]).ok();
            std::fs::remove_dir_all(bundle.path()).unwrap();
        }
        // What led to the container's group is nobody's to remove but ours.
        for group in [format!("caller/{own}"), "caller/runhcs-e2e".into(), "caller".into()] {
            std::fs::remove_dir(hierarchy.join(&own).join(group)).unwrap();
        }
    });
}

in_both!(what_is_copied_into_a_tmpfs_counts_against_the_memory_limit, |h: &Harness| {
    for (limit, fits) in [(24, false), (96, true)] {
        let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
            config["linux"]["resources"] = json!({ "memory": { "limit": limit << 20 } });
            config["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/copied", "type": "tmpfs", "source": "tmpfs",
                "options": ["tmpcopyup"],
            }));
        });
        let copied = bundle.path().join("rootfs/copied");
        std::fs::create_dir(&copied).unwrap();
        std::fs::write(copied.join("file"), vec![1; 48 << 20]).unwrap();
        let outcome = h.new_container(&["run"], &bundle, "box");
        if fits {
            outcome.ok();
        } else {
            // The kernel has killed the container's process, or refused it the memory.
            outcome.refused("container");
        }
        std::fs::remove_dir_all(bundle.path()).unwrap();
    }
});

#[test]
fn early_hooks_find_init_in_limited_groups() {
    Harness::run(Isolation::Process, "early hooks", |h| {
        if !std::path::Path::new("/sys/fs/cgroup/memory").exists() {
            return eprintln!("skipped: this system has no cgroup version 1");
        }
        let said = h.path("said");
        let script = format!(
            "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); \
             group=$(sed -n 's/^[0-9]*:memory://p' /proc/$pid/cgroup); \
             echo $group $(cat /sys/fs/cgroup/memory$group/memory.limit_in_bytes) >> {}",
            said.display()
        );
        let bundle = limited(h, &json!({ "memory": { "limit": 64 << 20 } })).edit(|config| {
            config["hooks"] = json!({ "prestart": hook(&script), "createRuntime": hook(&script) });
        });
        h.new_container(&["run", "--detach"], &bundle, "box").ok();
        let group = group_of(&h.state("box")["pid"], "memory");
        h.runhcs(&["delete", "--force", "box"]).ok();
        let line = format!("{group} {}\n", 64 << 20);
        assert_eq!(std::fs::read_to_string(said).unwrap(), line.repeat(2));
    });
}
