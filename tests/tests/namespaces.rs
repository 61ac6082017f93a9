//! `linux.namespaces`: each kind made anew, left out, and another container's by its path.

use std::path::PathBuf;

use runhcs_tests::config::{id_mappings, map_ids};
use runhcs_tests::{Bundle, Harness, Isolation, in_both};
use serde_json::{Value, json};

/// The kinds, and their names in procfs.
const KINDS: [(&str, &str); 8] = [
    ("cgroup", "cgroup"),
    ("ipc", "ipc"),
    ("mount", "mnt"),
    ("network", "net"),
    ("pid", "pid"),
    ("time", "time"),
    ("user", "user"),
    ("uts", "uts"),
];

/// Which namespace a process is in.
fn of(process: &str, name: &str) -> PathBuf {
    std::fs::read_link(format!("/proc/{process}/ns/{name}")).unwrap()
}

/// Lists all kinds but `missing`.
fn all_but(missing: &[&str], config: &mut Value) {
    let kinds = KINDS.iter().map(|(kind, _)| kind).filter(|kind| !missing.contains(kind));
    config["linux"]["namespaces"] = kinds.map(|kind| json!({ "type": kind })).collect();
    if missing.contains(&"uts") {
        config["hostname"] = json!("");
    }
    if !missing.contains(&"user") {
        map_ids(&mut config["linux"], &id_mappings(0, 0, 65536));
    }
}

/// Runs a container and returns its pid.
fn start(h: &Harness, name: &str, change: impl FnOnce(&mut Value)) -> String {
    let bundle = Bundle::new(h, name, &["sleep", "1000"]).edit(change);
    h.new_container(&["run", "--detach"], &bundle, name).ok();
    h.state(name)["pid"].to_string()
}

#[test]
fn each_kind_is_new_if_it_is_listed_and_the_callers_if_not() {
    Harness::run(Isolation::Process, "kinds", |h| {
        let pid = start(h, "all", |config| all_but(&[], config));
        for (kind, name) in KINDS {
            assert_ne!(of(&pid, name), of("self", name), "{kind}");
        }
        h.runhcs(&["delete", "--force", "all"]).ok();
        // Every container has a mount namespace.
        for (missing, _) in KINDS.into_iter().filter(|(kind, _)| *kind != "mount") {
            // A user namespace without others of its own can't have their file systems.
            let pid = start(h, missing, |config| all_but(&["user", missing], config));
            for (kind, name) in KINDS.into_iter().filter(|(kind, _)| *kind != "user") {
                let same = of(&pid, name) == of("self", name);
                assert_eq!(same, kind == missing, "{kind} without {missing}");
            }
            h.runhcs(&["delete", "--force", missing]).ok();
        }
    });
}

#[test]
fn each_kind_is_joined_by_its_path() {
    Harness::run(Isolation::Process, "paths", |h| {
        let first = start(h, "first", |config| all_but(&["user"], config));
        let others = KINDS.into_iter().filter(|(kind, _)| !["user", "mount"].contains(kind));
        for (joined, name) in others.clone() {
            let second = start(h, joined, |config| {
                all_but(&["user"], config);
                // Names are whose namespace they are in.
                config["hostname"] = json!("");
                let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
                let namespace = namespaces.iter_mut().find(|ns| ns["type"] == joined).unwrap();
                namespace["path"] = json!(format!("/proc/{first}/ns/{name}"));
            });
            for (kind, name) in others.clone() {
                let same = of(&first, name) == of(&second, name);
                assert_eq!(same, kind == joined, "{kind} with {joined} joined");
            }
            // So are further processes.
            let ask = ["exec", joined, "readlink", &format!("/proc/self/ns/{name}")];
            let exec = h.runhcs(&ask).ok().stdout;
            assert_eq!(exec.trim(), of(&first, name).to_str().unwrap(), "{joined}");
            h.runhcs(&["delete", "--force", joined]).ok();
        }
        h.runhcs(&["delete", "--force", "first"]).ok();
    });
}

in_both!(names_are_the_containers_own, |h: &Harness| {
    let own = std::fs::read_to_string("/proc/sys/kernel/domainname").unwrap();
    let script = "hostname; cat /proc/sys/kernel/domainname";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        config["hostname"] = json!("the-box");
        config["domainname"] = json!("boxes.example");
    });
    let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
    assert_eq!(printed, "the-box\nboxes.example\n");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/domainname").unwrap(), own);
});

#[test]
fn the_ids_of_a_joined_user_namespace_are_what_they_are() {
    Harness::run(Isolation::Process, "joined-ids", |h| {
        let ids = |ranges: &[[u32; 3]]| -> Value {
            let range = |[container, host, size]: &[u32; 3]| json!({ "containerID": container, "hostID": host, "size": size });
            ranges.iter().map(range).collect()
        };
        let own = ids(&[[0, 0, 1000], [1000, 1000, 64_536]]);
        let mapped = |config: &mut Value, users: &Value, groups: &Value| {
            all_but(&[], config);
            config["linux"]["uidMappings"] = users.clone();
            config["linux"]["gidMappings"] = groups.clone();
        };
        let first = start(h, "first", |config| mapped(config, &own, &own));
        let join = |config: &mut Value| {
            config["hostname"] = json!("");
            for (kind, name) in KINDS.into_iter().filter(|(kind, _)| *kind != "mount") {
                let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
                let namespace = namespaces.iter_mut().find(|each| each["type"] == kind).unwrap();
                namespace["path"] = json!(format!("/proc/{first}/ns/{name}"));
            }
        };
        let reversed = ids(&[[1000, 1000, 64_536], [0, 0, 1000]]);
        for (name, same) in [("equal", &own), ("reversed", &reversed), ("none", &json!([]))] {
            let second = start(h, name, |config| {
                mapped(config, same, same);
                join(config);
            });
            assert_eq!(of(&first, "user"), of(&second, "user"), "{same}");
            h.runhcs(&["delete", "--force", name]).ok();
        }
        let other = ids(&[[0, 0, 65_536]]);
        let refused = |users: &Value, groups: &Value, message: &str| {
            let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
                mapped(config, users, groups);
                join(config);
            });
            h.new_container(&["create"], &bundle, "box").refused(message);
            std::fs::remove_dir_all(bundle.path()).unwrap();
        };
        let theirs = "the user namespace that linux.namespaces has joined maps other ids: 0 0 1000, 1000 1000 64536";
        refused(&other, &own, &format!("linux.uidMappings: {theirs}"));
        refused(&own, &other, &format!("linux.gidMappings: {theirs}"));
        refused(&own, &json!([]), "linux.gidMappings: is needed to map ids, and is empty");
        h.runhcs(&["delete", "--force", "first"]).ok();
    });
}
