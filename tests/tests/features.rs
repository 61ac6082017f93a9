//! `features`: what it lists is complete, and each entry of it is accepted by `create`.

use runhcs_tests::config::{id_mappings, map_ids};
use runhcs_tests::{Bundle, Harness, Isolation};
use serde_json::{Value, json};

/// The document, and the texts at one place of it.
fn features(h: &Harness) -> Value {
    serde_json::from_str(&h.runhcs(&["features"]).ok().stdout).unwrap()
}

fn names<'a>(features: &'a Value, pointer: &str) -> Vec<&'a str> {
    let list = features.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is missing"));
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

fn accepted(h: &Harness, what: &str, change: impl FnOnce(&mut Value)) {
    let bundle = Bundle::new(h, "box", &["true"]).edit(change);
    let created = h.new_container(&["create"], &bundle, "box");
    assert_eq!(created.code, 0, "{what}: {created:?}");
    h.runhcs(&["delete", "--force", "box"]).ok();
    std::fs::remove_dir_all(bundle.path()).unwrap();
}

#[test]
fn every_list_is_complete() {
    Harness::run(Isolation::Process, "lists", |h| {
        let features = features(h);
        for (pointer, expected) in [
            ("/hooks", "prestart createRuntime createContainer startContainer poststart poststop"),
            ("/linux/namespaces", "cgroup ipc mount network pid time user uts"),
            (
                "/linux/seccomp/actions",
                "SCMP_ACT_ALLOW SCMP_ACT_ERRNO SCMP_ACT_KILL SCMP_ACT_KILL_PROCESS \
                 SCMP_ACT_KILL_THREAD SCMP_ACT_LOG SCMP_ACT_NOTIFY SCMP_ACT_TRACE SCMP_ACT_TRAP",
            ),
            (
                "/linux/seccomp/operators",
                "SCMP_CMP_EQ SCMP_CMP_GE SCMP_CMP_GT SCMP_CMP_LE SCMP_CMP_LT SCMP_CMP_MASKED_EQ \
                 SCMP_CMP_NE",
            ),
            (
                "/linux/seccomp/knownFlags",
                "SECCOMP_FILTER_FLAG_LOG SECCOMP_FILTER_FLAG_SPEC_ALLOW SECCOMP_FILTER_FLAG_TSYNC \
                 SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
            ),
            (
                "/linux/memoryPolicy/modes",
                "MPOL_BIND MPOL_DEFAULT MPOL_INTERLEAVE MPOL_LOCAL MPOL_PREFERRED \
                 MPOL_PREFERRED_MANY MPOL_WEIGHTED_INTERLEAVE",
            ),
            (
                "/linux/memoryPolicy/flags",
                "MPOL_F_NUMA_BALANCING MPOL_F_RELATIVE_NODES MPOL_F_STATIC_NODES",
            ),
        ] {
            assert_eq!(names(&features, pointer).join(" "), expected, "{pointer}");
        }
        for pointer in [
            "/linux/cgroup/v1",
            "/linux/cgroup/v2",
            "/linux/cgroup/systemd",
            "/linux/cgroup/systemdUser",
            "/linux/cgroup/rdma",
            "/linux/seccomp/enabled",
            "/linux/apparmor/enabled",
            "/linux/selinux/enabled",
            "/linux/intelRdt/enabled",
            "/linux/intelRdt/schemata",
            "/linux/intelRdt/monitoring",
            "/linux/mountExtensions/idmap/enabled",
            "/linux/netDevices/enabled",
        ] {
            assert_eq!(features.pointer(pointer), Some(&json!(true)), "{pointer}");
        }
        // The kernel's last one (capabilities(7)) has a number for each.
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
        let count: usize = last.trim().parse::<usize>().unwrap() + 1;
        assert!(names(&features, "/linux/capabilities").len() >= count, "{features}");
    });
}

#[test]
fn every_entry_is_accepted() {
    Harness::run(Isolation::Process, "entries", |h| {
        let features = features(h);
        let volume = h.path("volume");
        std::fs::create_dir(&volume).unwrap();
        let known = names(&features, "/mountOptions");
        accepted(h, "mount options", |config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            for (index, option) in known.iter().enumerate() {
                let destination = format!("/mount{index}");
                let mut mount = json!({
                    "destination": destination, "source": volume, "options": ["rbind", option]
                });
                match *option {
                    "remount" => mount["destination"] = json!("/mount0"),
                    "tmpcopyup" => {
                        mount["type"] = json!("tmpfs");
                        mount["options"] = json!([option]);
                    }
                    "idmap" | "ridmap" => {
                        map_ids(&mut mount, &id_mappings(0, 5, 9));
                    }
                    _ => {}
                }
                mounts.push(mount);
            }
        });
        accepted(h, "capabilities", |config| {
            for set in ["bounding", "permitted", "effective", "inheritable"] {
                config["process"]["capabilities"][set] = features["linux"]["capabilities"].clone();
            }
        });
        accepted(h, "seccomp", |config| {
            let operators = names(&features, "/linux/seccomp/operators");
            let actions = names(&features, "/linux/seccomp/actions");
            let actions = actions.iter().filter(|action| **action != "SCMP_ACT_NOTIFY");
            let argument = |index: usize, operator: &str| json!([{ "index": index % 6, "value": 1, "valueTwo": 1, "op": operator }]);
            // A call each, for what has been said of a call is not said otherwise.
            let of_operators = operators
                .iter()
                .zip(["mkdir", "chown", "chmod", "link", "mknod", "rmdir", "rename"]);
            let mut rules: Vec<Value> = of_operators
                .enumerate()
                .map(|(index, (operator, call))| {
                    let args = argument(index, operator);
                    json!({ "names": [call], "action": "SCMP_ACT_ERRNO", "args": args })
                })
                .collect();
            let calls =
                ["swapon", "swapoff", "reboot", "acct", "sethostname", "umount2", "chroot", "sync"];
            rules.extend(
                actions
                    .zip(calls)
                    .map(|(action, call)| json!({ "names": [call], "action": action })),
            );
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "flags": features["linux"]["seccomp"]["supportedFlags"],
                "syscalls": rules,
            });
        });
    });
}
