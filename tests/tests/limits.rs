//! Every limit of `linux.resources` and every option of `update`, by the control file that has it:
//! of version 1 on the host, of version 2 in the VM.

use runhcs_tests::config::{limited, run_limited};
use runhcs_tests::{Bundle, Harness, Isolation, in_both};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// Where a limit is to be found, by version 1's controller and file, and version 2's file.
struct Place {
    v1: Option<(&'static str, &'static str)>,
    v2: Option<&'static str>,
}

const fn place(v1: (&'static str, &'static str), v2: &'static str) -> Place {
    Place { v1: Some(v1), v2: Some(v2) }
}

/// There is none in version 2.
const fn in_v1(controller: &'static str, file: &'static str) -> Place {
    Place { v1: Some((controller, file)), v2: None }
}

/// The control file as the container's processes see it; `None` if there is none.
fn read(h: &Harness, place: &Place) -> Option<String> {
    let path = match h.isolation {
        Isolation::Process => place.v1.map(|(controller, file)| format!("{controller}/{file}")),
        Isolation::Vm => place.v2.map(str::to_owned),
    };
    let path = format!("/sys/fs/cgroup/{}", path?);
    let outcome = h.runhcs(&["exec", "box", "cat", &path]);
    // A kernel may be built without a controller.
    (outcome.code == 0).then(|| outcome.stdout.trim().to_owned())
}

/// A limit of the configuration, the options of `update` that set it, its place, its value in
/// version 1 and in version 2.
type Row = (Value, &'static [&'static str], Place, &'static str, &'static str);

fn rows() -> Vec<Row> {
    vec![
        (
            json!({ "memory": { "limit": 64 * MIB } }),
            &["--memory", "64M"],
            place(("memory", "memory.limit_in_bytes"), "memory.max"),
            "67108864",
            "67108864",
        ),
        (
            json!({ "memory": { "reservation": 32 * MIB } }),
            &["--memory-reservation", "32M"],
            place(("memory", "memory.soft_limit_in_bytes"), "memory.low"),
            "33554432",
            "33554432",
        ),
        (
            json!({ "memory": { "limit": 64 * MIB, "swap": 96 * MIB } }),
            &["--memory", "64M", "--memory-swap", "96M"],
            place(("memory", "memory.memsw.limit_in_bytes"), "memory.swap.max"),
            "100663296",
            "33554432",
        ),
        (
            json!({ "cpu": { "shares": 2048 } }),
            &["--cpu-share", "2048"],
            place(("cpu", "cpu.shares"), "cpu.weight"),
            "2048",
            "174",
        ),
        (
            json!({ "cpu": { "quota": 20_000 } }),
            &["--cpu-quota", "20000"],
            place(("cpu", "cpu.cfs_quota_us"), "cpu.max"),
            "20000",
            "20000 100000",
        ),
        (
            json!({ "cpu": { "period": 50_000 } }),
            &["--cpu-period", "50000"],
            place(("cpu", "cpu.cfs_period_us"), "cpu.max"),
            "50000",
            "max 50000",
        ),
        (
            json!({ "cpu": { "quota": 20_000, "burst": 10_000 } }),
            &["--cpu-quota", "20000", "--cpu-burst", "10000"],
            place(("cpu", "cpu.cfs_burst_us"), "cpu.max.burst"),
            "10000",
            "10000",
        ),
        (
            json!({ "cpu": { "cpus": "0" } }),
            &["--cpuset-cpus", "0"],
            place(("cpuset", "cpuset.cpus"), "cpuset.cpus"),
            "0",
            "0",
        ),
        (
            json!({ "cpu": { "mems": "0" } }),
            &["--cpuset-mems", "0"],
            place(("cpuset", "cpuset.mems"), "cpuset.mems"),
            "0",
            "0",
        ),
        (
            json!({ "cpu": { "idle": 1 } }),
            &["--cpu-idle", "1"],
            place(("cpu", "cpu.idle"), "cpu.idle"),
            "1",
            "1",
        ),
        (
            json!({ "pids": { "limit": 40 } }),
            &["--pids-limit", "40"],
            place(("pids", "pids.max"), "pids.max"),
            "40",
            "40",
        ),
        (
            json!({ "blockIO": { "weight": 250 } }),
            &["--blkio-weight", "250"],
            place(("blkio", "blkio.bfq.weight"), "io.weight"),
            "250",
            "default 2425",
        ),
        (
            json!({ "memory": { "swappiness": 7 } }),
            &[],
            in_v1("memory", "memory.swappiness"),
            "7",
            "",
        ),
    ]
}

in_both!(a_limit_of_the_configuration_is_set, |h: &Harness| {
    let mut wrong = Vec::new();
    for (resources, _, place, v1, v2) in rows() {
        let expected = if h.isolation == Isolation::Vm { v2 } else { v1 };
        let in_version_2 = h.isolation == Isolation::Vm;
        if in_version_2 && place.v2.is_none() {
            let bundle = limited(h, &resources);
            let outcome = h.new_container(&["create"], &bundle, "box");
            outcome.refused("cgroup version 2, which this system has, has no such setting");
            std::fs::remove_dir_all(bundle.path()).unwrap();
            continue;
        }
        let bundle = run_limited(h, &resources);
        let found = read(h, &place);
        if found.as_deref() != Some(expected) {
            wrong.push(format!("{resources}: {found:?}, not {expected}"));
        }
        h.runhcs(&["delete", "--force", "box"]).ok();
        std::fs::remove_dir_all(bundle.path()).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
});

in_both!(an_option_of_update_changes_what_it_names, |h: &Harness| {
    run_limited(h, &json!({}));
    let mut wrong = Vec::new();
    for (resources, options, place, v1, v2) in rows() {
        let expected = if h.isolation == Isolation::Vm { v2 } else { v1 };
        if options.is_empty() {
            continue;
        }
        let before = read(h, &place);
        h.runhcs(&[&["update"], options, &["box"]].concat()).ok();
        let found = read(h, &place);
        if found.as_deref() != Some(expected) {
            wrong.push(format!("{options:?}: {found:?}, not {expected}"));
        }
        // There is one node only.
        if before == found && options[0] != "--cpuset-mems" {
            wrong.push(format!("{options:?}: it was {before:?} before"));
        }
        take_back(h, options);
        // The same by a document.
        let file = h.path("resources.json");
        std::fs::write(&file, resources.to_string()).unwrap();
        h.runhcs(&["update", "--resources", file.to_str().unwrap(), "box"]).ok();
        let found = read(h, &place);
        if found.as_deref() != Some(expected) {
            wrong.push(format!("{resources}: {found:?}, not {expected}"));
        }
        take_back(h, options);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    h.runhcs(&["delete", "--force", "box"]).ok();
});

/// Ends the limits that those options set, where there is a word for none.
fn take_back(h: &Harness, options: &[&str]) {
    for name in ["--memory-swap", "--memory", "--memory-reservation", "--cpu-quota", "--pids-limit"]
    {
        if options.contains(&name) {
            h.runhcs(&["update", name, "-1", "box"]).ok();
        }
    }
}

// What has no control file here, or none any more, is refused by name, or ignored as with runc.
in_both!(an_option_without_an_effect_says_so, |h: &Harness| {
    run_limited(h, &json!({}));
    let before = h.runhcs(&["events", "--stats", "box"]).ok().stdout;
    let refused = |options: &[&str], message: &str| {
        h.runhcs(&[&["update"], options, &["box"]].concat()).refused(message);
    };
    match h.isolation {
        Isolation::Process => {
            refused(&["--blkio-weight", "1001"], "linux.resources.blockIO.weight");
            refused(&["--cpu-share", "1"], "linux.resources.cpu.shares");
        }
        Isolation::Vm => {
            refused(&["--cpu-rt-period", "50000"], "linux.resources.cpu.realtimePeriod");
            refused(&["--cpu-rt-runtime", "5000"], "linux.resources.cpu.realtimeRuntime");
        }
    }
    refused(&["--cpuset-cpus", "999"], "linux.resources.cpu.cpus");
    refused(&["--cpuset-mems", "99"], "linux.resources.cpu.mems");
    refused(&["--mem-bw-schema", "MB:0=10"], "Intel RDT");
    h.runhcs(&["update", "--kernel-memory", "1M", "--kernel-memory-tcp", "1M", "box"]).ok();
    let limits = |text: &str| {
        let event: Value = serde_json::from_str(text).unwrap();
        event["data"]["memory"]["usage"]["limit"].clone()
    };
    assert_eq!(limits(&before), limits(&h.runhcs(&["events", "--stats", "box"]).ok().stdout));
    h.runhcs(&["delete", "--force", "box"]).ok();
});

// As version 1.3 of the specification has it: what isn't there limits nothing, 0 is a limit.
in_both!(no_limit_of_processes_is_not_one_of_none, |h: &Harness| {
    let script = "echo one; (echo two) 2>/dev/null; echo three";
    for (name, pids, forks) in [
        ("none", json!({}), true),
        ("null", json!({ "limit": null }), true),
        ("zero", json!({ "limit": 0 }), false),
    ] {
        let bundle = Bundle::new(h, name, &["sh", "-c", script])
            .edit(|config| config["linux"]["resources"] = json!({ "pids": pids }));
        let outcome = h.new_container(&["run"], &bundle, name);
        let printed = if forks { "one\ntwo\nthree\n" } else { "one\n" };
        assert_eq!((outcome.stdout.as_str(), outcome.code == 0), (printed, forks), "{outcome:?}");
    }
    run_limited(h, &json!({ "pids": { "limit": 50 } }));
    let place = place(("pids", "pids.max"), "pids.max");
    h.runhcs(&["update", "--memory", "64M", "box"]).ok();
    assert_eq!(read(h, &place).unwrap(), "50");
    h.runhcs(&["update", "--pids-limit", "0", "box"]).ok();
    h.runhcs(&["exec", "box", "true"]).exec_refused("Resource temporarily unavailable");
    h.runhcs(&["update", "--pids-limit", "-1", "box"]).ok();
    assert_eq!(read(h, &place).unwrap(), "max");
    h.runhcs(&["delete", "--force", "box"]).ok();
});
