//! Values of `config.json` that are out of range, unknown or contradictory: each is refused by the
//! name of its field, and nothing is left. (Wrong types are refused by the `spec` crate, whose own
//! tests try each field.)

use runhcs_tests::config;
use serde_json::{Value, json};

/// Puts a value at a pointer, with the objects on the way.
fn put(config: &mut Value, pointer: &str, value: Value) {
    let mut at = config;
    for name in pointer.split('.') {
        at = &mut at[name];
    }
    *at = value;
}

/// Tries each of `rows`: fields and their values, and what the error must say.
#[track_caller]
fn refused(name: &str, rows: &[(Value, &str)]) {
    config::refused(name, rows, |config, values| {
        for (pointer, value) in values.as_object().unwrap() {
            put(config, pointer, value.clone());
        }
    });
}

fn idmap(container: u32, host: u32, size: u32) -> Value {
    json!({ "containerID": container, "hostID": host, "size": size })
}

#[test]
fn of_the_process() {
    let scheduler = |more: Value| {
        let mut scheduler = json!({ "policy": "SCHED_OTHER" });
        scheduler.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "process.scheduler": scheduler })
    };
    refused(
        "process",
        &[
            (json!({ "process.args": [] }), "process.args"),
            (json!({ "process.args": [""] }), "process.args[0]"),
            (json!({ "process.cwd": "relative" }), "process.cwd"),
            (json!({ "process.cwd": "" }), "process.cwd"),
            (json!({ "process.env": ["A=b", "nonsense"] }), "process.env[1]"),
            (json!({ "process.env": ["=b"] }), "process.env[0]"),
            (
                json!({ "process.consoleSize": { "height": 70_000, "width": 1 } }),
                "process.consoleSize.height",
            ),
            (json!({ "process.user.uid": -1 }), "process.user.uid"),
            (json!({ "process.user.additionalGids": [1, -1] }), "process.user.additionalGids[1]"),
            (json!({ "process.user.umask": 0o10000 }), "process.user.umask"),
            (
                json!({ "process.rlimits": [{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }] }),
                "process.rlimits[0].type",
            ),
            (
                json!({ "process.rlimits": [{ "type": "RLIMIT_CORE", "soft": 2, "hard": 1 }] }),
                "process.rlimits[0].soft",
            ),
            (
                json!({ "process.rlimits": [{ "type": "RLIMIT_CORE", "soft": 1, "hard": 1 }, { "type": "RLIMIT_CORE", "soft": 1, "hard": 1 }] }),
                "process.rlimits[1].type",
            ),
            (json!({ "process.oomScoreAdj": 1001 }), "process.oomScoreAdj"),
            (json!({ "process.oomScoreAdj": -1001 }), "process.oomScoreAdj"),
            (
                json!({ "process.ioPriority": { "class": "IOPRIO_CLASS_X", "priority": 0 } }),
                "process.ioPriority.class",
            ),
            (
                json!({ "process.ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 8 } }),
                "process.ioPriority.priority",
            ),
            (
                json!({ "process.ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": -1 } }),
                "process.ioPriority.priority",
            ),
            (json!({ "process.scheduler": { "policy": "SCHED_X" } }), "process.scheduler.policy"),
            (scheduler(json!({ "nice": 20 })), "process.scheduler.nice"),
            (scheduler(json!({ "nice": -21 })), "process.scheduler.nice"),
            (scheduler(json!({ "priority": 1 })), "process.scheduler.priority"),
            (scheduler(json!({ "flags": ["SCHED_FLAG_X"] })), "process.scheduler.flags"),
            (
                scheduler(json!({ "policy": "SCHED_FIFO", "priority": 100 })),
                "process.scheduler.priority",
            ),
            (
                scheduler(json!({ "policy": "SCHED_FIFO", "priority": 0 })),
                "process.scheduler.priority",
            ),
            (scheduler(json!({ "runtime": 1 })), "process.scheduler.runtime"),
            (scheduler(json!({ "policy": "SCHED_DEADLINE" })), "process.scheduler"),
            (
                scheduler(
                    json!({ "policy": "SCHED_DEADLINE", "runtime": 3000, "deadline": 2000, "period": 4000 }),
                ),
                "process.scheduler",
            ),
            (
                json!({ "process.execCPUAffinity": { "initial": "x" } }),
                "process.execCPUAffinity.initial",
            ),
            (
                json!({ "process.execCPUAffinity": { "final": "3-1" } }),
                "process.execCPUAffinity.final",
            ),
            (json!({ "process.terminal": true }), "terminal"),
        ],
    );
}

#[test]
fn of_the_root_and_mounts() {
    let mount = |mount: Value| json!({ "mounts": [mount] });
    let bind = |options: Value| {
        mount(json!({ "destination": "/x", "source": "/tmp", "options": options }))
    };
    refused(
        "mounts",
        &[
            (json!({ "root": null }), "root"),
            (json!({ "root.path": "" }), "root"),
            (json!({ "root.path": "nowhere" }), "root.path"),
            (json!({ "root.path": "../box" }), "root.path"),
            (mount(json!({ "destination": "", "type": "tmpfs" })), "mounts[0].destination"),
            (mount(json!({ "destination": "/x" })), "mounts[0].type"),
            (mount(json!({ "destination": "/x", "type": "bind" })), "mounts[0].source"),
            (
                mount(json!({ "destination": "/x", "source": "/nowhere", "options": ["bind"] })),
                "mounts[0]",
            ),
            (mount(json!({ "destination": "/x", "type": "nosuchfs" })), "mounts[0]"),
            (
                mount(json!({ "destination": "/x", "type": "tmpfs", "options": ["size=x"] })),
                "mounts[0]",
            ),
            (
                mount(
                    json!({ "destination": "/x", "type": "tmpfs", "uidMappings": [idmap(0, 0, 1)], "gidMappings": [idmap(0, 0, 1)] }),
                ),
                "mounts[0]",
            ),
            (bind(json!(["bind", "nonsense"])), "mounts[0].options[1]"),
            (bind(json!(["bind", "idmap"])), "mounts[0].options"),
            (json!({ "linux.rootfsPropagation": "sideways" }), "linux.rootfsPropagation"),
            (json!({ "linux.maskedPaths": ["relative"] }), "linux.maskedPaths[0]"),
            (json!({ "linux.readonlyPaths": ["relative"] }), "linux.readonlyPaths[0]"),
        ],
    );
}

#[test]
fn of_names_and_namespaces() {
    let namespaces = |list: Value| json!({ "linux.namespaces": list, "hostname": "" });
    let user = json!([{ "type": "user" }, { "type": "mount" }, { "type": "pid" }]);
    let mapped = |uids: Value, gids: Value| json!({ "linux.namespaces": user, "hostname": "", "linux.uidMappings": uids, "linux.gidMappings": gids });
    refused(
        "namespaces",
        &[
            (json!({ "ociVersion": "2.0.0" }), "ociVersion"),
            (json!({ "ociVersion": "x" }), "ociVersion"),
            (json!({ "hostname": "x".repeat(65) }), "hostname"),
            (json!({ "domainname": "x".repeat(65) }), "domainname"),
            (
                json!({ "domainname": "a", "linux.sysctl": { "kernel.domainname": "b" } }),
                "linux.sysctl.kernel.domainname",
            ),
            (json!({ "annotations": { "": "x" } }), "annotations"),
            (json!({ "annotations": { "io.runhcs.nonsense": "x" } }), "io.runhcs.nonsense"),
            (namespaces(json!([{ "type": "x" }])), "linux.namespaces[0].type"),
            (
                namespaces(json!([{ "type": "mount" }, { "type": "mount" }])),
                "linux.namespaces[1].type",
            ),
            (
                namespaces(json!([{ "type": "mount", "path": "relative" }])),
                "linux.namespaces[0].path",
            ),
            (
                namespaces(json!([{ "type": "mount" }, { "type": "ipc", "path": "/nowhere" }])),
                "/nowhere",
            ),
            (
                namespaces(
                    json!([{ "type": "mount" }, { "type": "ipc", "path": "/proc/self/ns/uts" }]),
                ),
                "ipc",
            ),
            (json!({ "linux.namespaces": [{ "type": "mount" }] }), "hostname"),
            (
                json!({ "hostname": "", "linux.namespaces": [{ "type": "pid" }] }),
                "linux.namespaces",
            ),
            (json!({ "linux.timeOffsets": { "monotonic": { "secs": 1 } } }), "linux.timeOffsets"),
            (mapped(json!([]), json!([idmap(0, 0, 1)])), "linux.uidMappings"),
            (mapped(json!([idmap(0, 0, 1)]), json!([])), "linux.gidMappings"),
            (mapped(json!([idmap(0, 0, 0)]), json!([idmap(0, 0, 1)])), "linux.uidMappings[0]"),
            (
                mapped(json!([idmap(0, 5, 2), idmap(1, 9, 1)]), json!([idmap(0, 0, 1)])),
                "linux.uidMappings",
            ),
            (
                mapped(json!([idmap(0, 0, 1)]), json!([idmap(0, u32::MAX, 2)])),
                "linux.gidMappings[0]",
            ),
            (json!({ "linux.uidMappings": [idmap(0, 0, 1)] }), "linux.uidMappings"),
            (json!({ "linux.sysctl": { "kernel.panic": "1" } }), "linux.sysctl"),
            (json!({ "linux.sysctl": { "net.ipv4.nonsense": "1" } }), "net.ipv4.nonsense"),
            (json!({ "linux.sysctl": { "net/../kernel/panic": "1" } }), "linux.sysctl"),
            (json!({ "linux.netDevices": { "a/b": {} } }), "linux.netDevices.a/b"),
            (
                json!({ "linux.netDevices": { "nosuchdevice": {} } }),
                "linux.netDevices.nosuchdevice",
            ),
            (json!({ "linux.intelRdt": { "closID": "a/b" } }), "linux.intelRdt"),
            (json!({ "linux.personality": { "domain": "X" } }), "linux.personality.domain"),
            (
                json!({ "linux.personality": { "domain": "LINUX", "flags": ["X"] } }),
                "linux.personality.flags",
            ),
            (json!({ "linux.memoryPolicy": { "mode": "X" } }), "linux.memoryPolicy.mode"),
            (json!({ "linux.memoryPolicy": { "mode": "MPOL_BIND" } }), "linux.memoryPolicy.nodes"),
            (
                json!({ "linux.memoryPolicy": { "mode": "MPOL_BIND", "nodes": "x" } }),
                "linux.memoryPolicy.nodes",
            ),
            (
                json!({ "linux.memoryPolicy": { "mode": "MPOL_LOCAL", "nodes": "0" } }),
                "linux.memoryPolicy.nodes",
            ),
            (
                json!({ "linux.memoryPolicy": { "mode": "MPOL_BIND", "nodes": "0", "flags": ["X"] } }),
                "linux.memoryPolicy.flags[0]",
            ),
        ],
    );
}

#[test]
fn of_devices_and_resources() {
    let device = |device: Value| json!({ "linux.devices": [device] });
    let resource = |name: &str, value: Value| json!({ format!("linux.resources.{name}"): value });
    let rule = |rule: Value| resource("devices", json!([rule]));
    refused(
        "resources",
        &[
            (
                device(json!({ "path": "relative", "type": "c", "major": 1, "minor": 3 })),
                "linux.devices[0].path",
            ),
            (
                device(json!({ "path": "/dev/x", "type": "z", "major": 1, "minor": 3 })),
                "linux.devices[0].type",
            ),
            (
                device(json!({ "path": "/dev/x", "type": "c", "major": -1, "minor": 3 })),
                "linux.devices[0].major",
            ),
            (
                device(json!({ "path": "/dev/x", "type": "c", "major": 1, "minor": 1_i64 << 40 })),
                "linux.devices[0].minor",
            ),
            (
                device(json!({ "path": "/", "type": "c", "major": 1, "minor": 3 })),
                "linux.devices[0].path",
            ),
            (
                rule(json!({ "allow": true, "type": "z", "access": "r" })),
                "linux.resources.devices[0].type",
            ),
            (
                rule(json!({ "allow": true, "type": "c", "access": "x" })),
                "linux.resources.devices[0].access",
            ),
            (
                rule(json!({ "allow": true, "type": "c", "major": -2, "access": "r" })),
                "linux.resources.devices[0].major",
            ),
            (resource("memory", json!({ "limit": -2 })), "linux.resources.memory.limit"),
            (
                resource("memory", json!({ "limit": 2_000_000, "swap": 1_000_000 })),
                "linux.resources.memory.swap",
            ),
            (resource("memory", json!({ "swappiness": 101 })), "linux.resources.memory.swappiness"),
            (resource("cpu", json!({ "cpus": "x" })), "linux.resources.cpu.cpus"),
            (resource("cpu", json!({ "cpus": "1000000" })), "linux.resources.cpu.cpus"),
            (resource("cpu", json!({ "mems": "1-0" })), "linux.resources.cpu.mems"),
            (resource("cpu", json!({ "quota": 1 })), "linux.resources.cpu.quota"),
            (
                resource("cpu", json!({ "quota": 10_000, "period": 1 })),
                "linux.resources.cpu.period",
            ),
            (resource("cpu", json!({ "idle": 2 })), "linux.resources.cpu.idle"),
            (resource("pids", json!({ "limit": "x" })), "linux.resources.pids.limit"),
            (
                resource("hugepageLimits", json!([{ "pageSize": "3KB", "limit": 1 }])),
                "linux.resources.hugepageLimits[0]",
            ),
            (resource("blockIO", json!({ "weight": 9 })), "linux.resources.blockIO.weight"),
            (resource("blockIO", json!({ "weight": 1001 })), "linux.resources.blockIO.weight"),
            (
                resource(
                    "network",
                    json!({ "priorities": [{ "name": "no/such", "priority": 1 }] }),
                ),
                "linux.resources.network",
            ),
            (json!({ "linux.cgroupsPath": "../../x" }), "linux.cgroupsPath"),
        ],
    );
}

#[test]
fn of_seccomp_and_hooks() {
    let seccomp = |more: Value| {
        let mut seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        seccomp.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "linux.seccomp": seccomp })
    };
    let rule = |more: Value| {
        let mut rule = json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" });
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        seccomp(json!({ "syscalls": [rule] }))
    };
    let hook = |hook: Value| json!({ "hooks": { "createRuntime": [hook] } });
    refused(
        "seccomp and hooks",
        &[
            (seccomp(json!({ "defaultAction": "X" })), "linux.seccomp.defaultAction"),
            (seccomp(json!({ "architectures": ["X"] })), "linux.seccomp.architectures[0]"),
            (seccomp(json!({ "flags": ["X"] })), "linux.seccomp.flags[0]"),
            (seccomp(json!({ "listenerPath": "relative" })), "linux.seccomp.listenerPath"),
            (rule(json!({ "action": "X" })), "linux.seccomp.syscalls[0].action"),
            (rule(json!({ "names": [] })), "linux.seccomp.syscalls[0].names"),
            (rule(json!({ "action": "SCMP_ACT_NOTIFY" })), "linux.seccomp.listenerPath"),
            (
                rule(json!({ "args": [{ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" }] })),
                "linux.seccomp.syscalls[0].args[0].index",
            ),
            (
                rule(json!({ "args": [{ "index": 0, "value": 1, "op": "X" }] })),
                "linux.seccomp.syscalls[0].args[0].op",
            ),
            (rule(json!({ "errnoRet": 100_000 })), "linux.seccomp.syscalls[0].errnoRet"),
            (hook(json!({ "path": "relative" })), "hooks.createRuntime[0].path"),
            (hook(json!({ "path": "/bin/true", "timeout": 0 })), "hooks.createRuntime[0].timeout"),
            (hook(json!({ "path": "/bin/true", "timeout": -1 })), "hooks.createRuntime[0].timeout"),
            (hook(json!({ "path": "/bin/true", "env": ["x"] })), "hooks.createRuntime[0].env[0]"),
            (hook(json!({ "path": "/nowhere" })), "/nowhere"),
        ],
    );
}
