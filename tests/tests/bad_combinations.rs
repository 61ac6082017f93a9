//! Further values of `config.json` that are each right in themselves, but not together, or not on
//! this system: each is refused by the name of its field, and nothing is left.

use runhcs_tests::config::{self, id_mappings};
use serde_json::{Value, json};

/// Tries each of `rows`: a JSON merge patch (RFC 7396), and what the error must say.
#[track_caller]
fn refused(name: &str, rows: &[(Value, &str)]) {
    config::refused(name, rows, merge);
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        merge(&mut target[name], value);
    }
}

#[test]
fn of_namespaces_and_ids() {
    let kinds = |more: Value| {
        let mut kinds = vec![json!({ "type": "mount" }), json!({ "type": "uts" })];
        kinds.push(more);
        kinds
    };
    let owned = |process: Value| {
        json!({
            "process": process,
            "linux": {
                "namespaces": kinds(json!({ "type": "user" })),
                "uidMappings": id_mappings(0, 0, 100), "gidMappings": id_mappings(0, 0, 100),
            },
        })
    };
    let clock = |name: &str, offset: Value| {
        json!({ "linux": {
            "namespaces": kinds(json!({ "type": "time" })), "timeOffsets": { name: offset }
        } })
    };
    let joined = |kind: &str, path: &str| json!({ "linux": { "namespaces": kinds(json!({ "type": kind, "path": path })) } });
    let many: Vec<Value> =
        (0..341).map(|n| json!({ "containerID": n, "hostID": n, "size": 1 })).collect();
    let many = json!({ "linux": {
        "namespaces": kinds(json!({ "type": "user" })), "uidMappings": many, "gidMappings": many,
    } });
    let device = |name: &str| json!({ "linux": { "netDevices": { "lo": { "name": name } } } });
    refused(
        "ids",
        &[
            (owned(json!({ "user": { "uid": 100 } })), "process.user.uid"),
            (owned(json!({ "user": { "gid": 100 } })), "process.user.gid"),
            (owned(json!({ "user": { "additionalGids": [1, 100] } })), "additionalGids[1]"),
            (joined("user", "/proc/self/ns/user"), "linux.namespaces[2].path"),
            (joined("user", "/proc/self/ns/net"), "linux.namespaces[2].path"),
            (joined("ipc", "/proc/self/ns/uts"), "linux.namespaces[2].path"),
            (joined("time", "/proc/self/ns/pid"), "linux.namespaces[2].path"),
            (joined("network", "/dev/null"), "linux.namespaces[2].path"),
            (joined("network", "/nowhere"), "linux.namespaces[2].path"),
            (many, "linux.uidMappings"),
            (clock("realtime", json!({ "secs": 1 })), "linux.timeOffsets.realtime"),
            (clock("boottime", json!({ "nanosecs": 1_000_000_000_u64 })), "linux.timeOffsets"),
            (clock("monotonic", json!({ "secs": -1_000_000_000_i64 })), "linux.timeOffsets"),
            (device("a/b"), "linux.netDevices.lo.name"),
            (device("sixteen-letters-"), "linux.netDevices.lo.name"),
            (device(".."), "linux.netDevices.lo.name"),
            (json!({ "linux": { "sysctl": { "": "1" } } }), "linux.sysctl"),
            (
                json!({ "linux": { "sysctl": { "net.ipv4.ip_forward": "x" } } }),
                "net.ipv4.ip_forward",
            ),
            (json!({ "linux": { "maskedPaths": [""] } }), "linux.maskedPaths[0]"),
            (json!({ "linux": { "readonlyPaths": ["/proc", ""] } }), "linux.readonlyPaths[1]"),
        ],
    );
}

#[test]
fn of_mounts() {
    let mount = |mount: Value| json!({ "mounts": [mount] });
    let mapped = |uids: Value, gids: Value| {
        mount(json!({
            "destination": "/x", "source": "/tmp", "options": ["bind"],
            "uidMappings": uids, "gidMappings": gids,
        }))
    };
    refused(
        "mounts",
        &[
            (mapped(id_mappings(0, 0, 0), id_mappings(0, 0, 1)), "mounts[0].uidMappings[0]"),
            (mapped(id_mappings(0, 0, 1), id_mappings(0, u32::MAX, 2)), "mounts[0].gidMappings[0]"),
            (mapped(id_mappings(0, 0, 1), json!([])), "mounts[0].gidMappings"),
            (mapped(json!([]), id_mappings(0, 0, 1)), "mounts[0].uidMappings"),
            (
                mount(json!({ "destination": "/x", "type": "tmpfs", "options": ["tmpcopyup=1"] })),
                "mounts[0]",
            ),
            (
                mount(
                    json!({ "destination": "/x", "type": "tmpfs", "options": ["ro", "mode=99"] }),
                ),
                "mounts[0]",
            ),
            (
                mount(json!({ "destination": "/x", "type": "proc", "options": ["hidepid=x"] })),
                "mounts[0]",
            ),
        ],
    );
}

#[test]
fn of_resources() {
    let resource = |name: &str, value: Value| json!({ "linux": { "resources": { name: value } } });
    let weight = |weight: Value| {
        let mut device = json!({ "major": 4000, "minor": 0 });
        merge(&mut device, &weight);
        resource("blockIO", json!({ "weightDevice": [device] }))
    };
    let throttle = |name: &str| {
        resource("blockIO", json!({ name: [{ "major": 4000, "minor": 0, "rate": 1 }] }))
    };
    refused(
        "resources",
        &[
            (resource("memory", json!({ "swap": -2 })), "memory.swap"),
            (resource("memory", json!({ "reservation": -2 })), "memory.reservation"),
            (resource("memory", json!({ "kernelTCP": -2 })), "memory.kernelTCP"),
            (resource("cpu", json!({ "shares": 1 })), "cpu.shares"),
            (resource("cpu", json!({ "shares": 262_145 })), "cpu.shares"),
            (resource("cpu", json!({ "period": 1_000_001 })), "cpu.period"),
            (resource("cpu", json!({ "quota": 10_000, "burst": 20_000 })), "cpu.burst"),
            (
                resource(
                    "cpu",
                    json!({ "realtimeRuntime": 2_000_000, "realtimePeriod": 1_000_000 }),
                ),
                "cpu.realtime",
            ),
            (resource("cpu", json!({ "mems": "1000" })), "cpu.mems"),
            (resource("blockIO", json!({ "leafWeight": 9 })), "blockIO.leafWeight"),
            (weight(json!({ "weight": 1001 })), "blockIO.weightDevice[0].weight"),
            (weight(json!({ "leafWeight": 9 })), "blockIO.weightDevice[0].leafWeight"),
            (weight(json!({ "weight": 100 })), "blockIO.weightDevice[0]"),
            (throttle("throttleReadBpsDevice"), "blockIO.throttleReadBpsDevice[0]"),
            (throttle("throttleWriteBpsDevice"), "blockIO.throttleWriteBpsDevice[0]"),
            (throttle("throttleReadIOPSDevice"), "blockIO.throttleReadIOPSDevice[0]"),
            (throttle("throttleWriteIOPSDevice"), "blockIO.throttleWriteIOPSDevice[0]"),
            (
                resource("hugepageLimits", json!([{ "pageSize": "2MB/..", "limit": 1 }])),
                "hugepageLimits[0].pageSize",
            ),
            (
                resource("hugepageLimits", json!([{ "pageSize": "4MB", "limit": 1 }])),
                "hugepageLimits[0]",
            ),
            (resource("rdma", json!({ "a b": { "hcaHandles": 1 } })), "rdma.a b"),
            (resource("rdma", json!({ "mlx5_0": {} })), "rdma.mlx5_0"),
            (resource("network", json!({ "classID": 1_u64 << 32 })), "network.classID"),
        ],
    );
}

#[test]
fn of_programs_and_labels() {
    let hook =
        |point: &str, hook: Value| json!({ "hooks": { point: [{ "path": "/bin/true" }, hook] } });
    let seccomp = |more: Value| {
        let mut seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        merge(&mut seccomp, &more);
        json!({ "linux": { "seccomp": seccomp } })
    };
    let rule = |action: &str, more: Value| {
        let mut rule = json!({ "names": ["mkdir"], "action": action });
        merge(&mut rule, &more);
        seccomp(json!({ "syscalls": [rule] }))
    };
    let flags = |flag: &str| json!({ "process": { "scheduler": { "policy": "SCHED_OTHER", "flags": [flag] } } });
    let mut rows = vec![
        (seccomp(json!({ "listenerMetadata": "x" })), "linux.seccomp.listenerMetadata".to_owned()),
        (seccomp(json!({ "defaultErrnoRet": 1 })), "linux.seccomp.defaultErrnoRet".to_owned()),
        (
            seccomp(json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x" })),
            "linux.seccomp.defaultAction".to_owned(),
        ),
        (
            rule("SCMP_ACT_KILL", json!({ "errnoRet": 1 })),
            "linux.seccomp.syscalls[0].errnoRet".to_owned(),
        ),
        (flags("SCHED_FLAG_UTIL_CLAMP_MIN"), "process.scheduler.flags[0]".to_owned()),
        (flags("SCHED_FLAG_UTIL_CLAMP_MAX"), "process.scheduler.flags[0]".to_owned()),
        (flags("SCHED_FLAG_X"), "process.scheduler.flags[0]".to_owned()),
        (
            json!({ "process": { "scheduler": { "policy": "SCHED_ISO" } } }),
            "process.scheduler.policy".to_owned(),
        ),
        (
            json!({ "process": { "execCPUAffinity": { "initial": "100000" } } }),
            "process.execCPUAffinity.initial".to_owned(),
        ),
        (
            json!({ "linux": { "memoryPolicy": { "mode": "MPOL_BIND", "nodes": "1000" } } }),
            "linux.memoryPolicy".to_owned(),
        ),
        (
            json!({ "linux": { "memoryPolicy": { "mode": "MPOL_DEFAULT", "nodes": "0" } } }),
            "linux.memoryPolicy.nodes".to_owned(),
        ),
    ];
    for point in
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    {
        for (hook_of, field) in [
            (json!({ "path": "" }), "path"),
            (json!({ "path": "relative" }), "path"),
            (json!({ "path": "/bin/true", "timeout": 0 }), "timeout"),
            (json!({ "path": "/bin/true", "timeout": -1 }), "timeout"),
            (json!({ "path": "/bin/true", "env": ["A=b", "x"] }), "env[1]"),
        ] {
            rows.push((hook(point, hook_of), format!("hooks.{point}[1].{field}")));
        }
    }
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        rows.push((
            json!({ "linux": { "mountLabel": "a:b:c:s0" } }),
            "linux.mountLabel".to_owned(),
        ));
    }
    if !std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
        for field in [
            json!({ "closID": "x" }),
            json!({ "schemata": ["L3:0=f"] }),
            json!({ "enableMonitoring": true }),
        ] {
            rows.push((json!({ "linux": { "intelRdt": field } }), "linux.intelRdt".to_owned()));
        }
    }
    let rows: Vec<(Value, &str)> =
        rows.iter().map(|(patch, field)| (patch.clone(), field.as_str())).collect();
    refused("programs", &rows);
}
