//! Where a container goes: every branch of the decision on its sandbox, its host and its isolation.

use runhcs_tests::wine::{WindowsBundle, Wine, in_pod, namespace};
use serde_json::{Value, json};

use crate::kinds::{Kind, in_all};

/// The ids of the VMs that there are.
fn machines(wine: &Wine) -> Vec<String> {
    let systems = wine.sim.snapshot().unwrap().systems.into_iter();
    let mut machines: Vec<_> = systems.map(|s| s.id).filter(|id| id.ends_with("@vm")).collect();
    machines.sort();
    machines
}

/// Where a container is, as its state has it: its isolation, its sandbox, its VM's owner.
fn place(wine: &Wine, id: &str) -> [Value; 3] {
    let state = wine.state(id);
    ["isolation", "sandboxId", "hostId"].map(|field| state[field].clone())
}

fn plain(wine: &Wine, kind: Kind, id: &str) -> WindowsBundle {
    kind.lasting(wine, id)
}

fn sandbox(wine: &Wine, kind: Kind, id: &str) -> WindowsBundle {
    kind.lasting_with(wine, id, |spec| in_pod(spec, "sandbox", id))
}

fn member(wine: &Wine, kind: Kind, id: &str, sandbox: &str) -> WindowsBundle {
    kind.lasting_with(wine, id, |spec| in_pod(spec, "container", sandbox))
}

#[track_caller]
fn create(wine: &Wine, bundle: &WindowsBundle, id: &str) {
    wine.new_container(&["create"], bundle, id).ok();
}

#[track_caller]
fn create_with_host(wine: &Wine, bundle: &WindowsBundle, id: &str, host: &str) {
    wine.new_container(&["create", "--host", host], bundle, id).ok();
}

/// That a creation is refused, for a reason, and that nothing comes of it.
#[track_caller]
fn refused(wine: &Wine, options: &[&str], bundle: &WindowsBundle, id: &str, reason: &str) {
    let before = machines(wine);
    let verb: Vec<&str> = ["create"].iter().chain(options).copied().collect();
    wine.new_container(&verb, bundle, id).refused(reason);
    assert_eq!(machines(wine), before);
    wine.runhcs(&["state", id]).refused("does not exist");
}

fn delete(wine: &Wine, ids: &[&str]) {
    for id in ids {
        wine.runhcs(&["delete", "--force", id]).ok();
    }
}

in_all!(without_a_host_it_is_its_own, |wine: &Wine, kind: Kind| {
    let is_vm = kind != Kind::Argon;
    for (id, in_pod) in [("alone", false), ("pod", true)] {
        let bundle = if in_pod { sandbox(wine, kind, id) } else { plain(wine, kind, id) };
        create(wine, &bundle, id);
        let isolation = if is_vm { "vm" } else { "process" };
        let sandbox = if in_pod { json!(id) } else { Value::Null };
        let host = if is_vm { json!(id) } else { Value::Null };
        assert_eq!(place(wine, id), [json!(isolation), sandbox, host]);
        let expected = if is_vm { vec![format!("{id}@vm")] } else { Vec::new() };
        assert_eq!(machines(wine), expected);
        let record = wine.stored(id, "record");
        let unique_id = record["unique_id"].as_str().unwrap();
        // A UUID of version 4.
        assert_eq!((unique_id.len(), &unique_id[14..15]), (36, "4"));
        let host_unique_id = &record["vm"]["host_unique_id"];
        assert_eq!(host_unique_id, if is_vm { &record["unique_id"] } else { &Value::Null });
        delete(wine, &[id]);
    }
});

in_all!(a_member_goes_where_its_sandbox_is, |wine: &Wine, kind: Kind| {
    create(wine, &sandbox(wine, kind, "pod"), "pod");
    let before = machines(wine);
    create(wine, &member(wine, kind, "one", "pod"), "one");
    let [isolation, _, host] = place(wine, "pod");
    assert_eq!(place(wine, "one"), [isolation, json!("pod"), host]);
    let (pod, one) = (wine.stored("pod", "record"), wine.stored("one", "record"));
    assert_eq!(one["vm"], pod["vm"]);
    assert_ne!(one["unique_id"], pod["unique_id"]);
    if kind != Kind::Argon {
        // The host that its sandbox has anyway may be named.
        create_with_host(wine, &member(wine, kind, "two", "pod"), "two", "pod");
        assert_eq!(place(wine, "two"), place(wine, "one"));
    }
    assert_eq!(machines(wine), before);
    delete(wine, &["two", "one", "pod"]);
});

in_all!(a_sandboxs_contradictions_are_refused, |wine: &Wine, kind: Kind| {
    let other = kind.lasting_with(wine, "one", |spec| in_pod(spec, "sandbox", "else"));
    refused(wine, &[], &other, "one", "a sandbox's id must be its own");
    refused(wine, &["--host", "any"], &other, "one", "a sandbox's id must be its own");
    let lost = member(wine, kind, "one", "nowhere");
    refused(wine, &[], &lost, "one", "sandbox nowhere of container one does not exist");
    create(wine, &sandbox(wine, kind, "pod"), "pod");
    create(wine, &member(wine, kind, "member", "pod"), "member");
    let misled = member(wine, kind, "one", "member");
    refused(wine, &[], &misled, "one", "is not a sandbox");
    delete(wine, &["member", "pod"]);
});

in_all!(a_hosts_contradictions_are_refused, |wine: &Wine, kind: Kind| {
    let bundle = plain(wine, kind, "one");
    refused(wine, &["--host", "nobody"], &bundle, "one", "host nobody of container one does not");
    refused(wine, &["--host", "one"], &bundle, "one", "that is to be created");
    create(wine, &plain(wine, Kind::Argon, "argon"), "argon");
    refused(wine, &["--host", "argon"], &bundle, "one", "is not the host of a VM");
    // A sandbox that is on the host has no VM for its members.
    create(wine, &sandbox(wine, Kind::Argon, "pod"), "pod");
    let of_pod = member(wine, kind, "one", "pod");
    refused(wine, &["--host", "argon"], &of_pod, "one", "sandbox pod of container one has no VM");
    if kind != Kind::Argon {
        refused(wine, &[], &of_pod, "one", "VM isolation was asked for container one");
        create(wine, &sandbox(wine, kind, "vm"), "vm");
        create(wine, &plain(wine, kind, "other"), "other");
        let of_vm = member(wine, kind, "one", "vm");
        refused(
            wine,
            &["--host", "other"],
            &of_vm,
            "one",
            "--host other was given, but sandbox vm",
        );
        refused(wine, &["--host", "other"], &of_vm, "one", "is in the VM of vm");
        let guest = plain(wine, kind, "guest");
        create_with_host(wine, &guest, "guest", "other");
        let bundle = plain(wine, kind, "one");
        refused(wine, &["--host", "guest"], &bundle, "one", "is not the host of a VM");
        delete(wine, &["guest", "other", "vm"]);
    }
    delete(wine, &["pod", "argon"]);
});

/// A sandbox can be in the VM of another container, and its members with it.
fn joined_by_a_pod(wine: &Wine, kind: Kind) {
    create(wine, &plain(wine, kind, "host"), "host");
    create_with_host(wine, &sandbox(wine, kind, "pod"), "pod", "host");
    assert_eq!(place(wine, "pod"), [json!("vm"), json!("pod"), json!("host")]);
    create(wine, &member(wine, kind, "one", "pod"), "one");
    assert_eq!(place(wine, "one"), [json!("vm"), json!("pod"), json!("host")]);
    assert_eq!(machines(wine), ["host@vm"]);
    let host = wine.stored("host", "record");
    for id in ["pod", "one"] {
        assert_eq!(wine.stored(id, "record")["vm"]["host_unique_id"], host["unique_id"]);
    }
    // The VM stays with who owns it.
    wine.runhcs(&["delete", "one"]).ok();
    wine.runhcs(&["delete", "pod"]).ok();
    assert_eq!(machines(wine), ["host@vm"]);
    delete(wine, &["host"]);
}

#[test]
fn a_linux_vm_is_joined_by_a_pod() {
    Wine::run("pod in a host lcow", |wine| joined_by_a_pod(wine, Kind::Lcow));
}

#[test]
fn a_windows_vm_is_joined_by_a_pod() {
    Wine::run("pod in a host xenon", |wine| joined_by_a_pod(wine, Kind::Xenon));
}

#[test]
fn a_vm_takes_what_its_guest_can_run() {
    Wine::run("guests", |wine| {
        create(wine, &plain(wine, Kind::Xenon, "windows"), "windows");
        create(wine, &plain(wine, Kind::Lcow, "linux"), "linux");
        // What need not be in a VM may be.
        create_with_host(wine, &plain(wine, Kind::Argon, "one"), "one", "windows");
        assert_eq!(place(wine, "one"), [json!("vm"), Value::Null, json!("windows")]);
        delete(wine, &["one"]);
        for kind in [Kind::Argon, Kind::Xenon] {
            let bundle = plain(wine, kind, "one");
            refused(wine, &["--host", "linux"], &bundle, "one", "a Windows container");
        }
        let bundle = plain(wine, Kind::Lcow, "one");
        refused(wine, &["--host", "windows"], &bundle, "one", "a Linux container");
        delete(wine, &["linux", "windows"]);
    });
}

#[test]
fn an_annotation_cant_contradict_the_configuration() {
    Wine::run("isolation annotation", |wine| {
        for (kind, isolation) in
            [(Kind::Argon, "vm"), (Kind::Xenon, "process"), (Kind::Lcow, "process")]
        {
            let annotated = |isolation: &str| {
                kind.lasting_with(wine, "one", |spec| {
                    spec["annotations"] = json!({"io.runhcs.isolation": isolation});
                })
            };
            refused(wine, &[], &annotated(isolation), "one", "io.runhcs.isolation");
            let other = if isolation == "vm" { "process" } else { "vm" };
            create(wine, &annotated(other), "one");
            assert_eq!(place(wine, "one")[0], other);
            delete(wine, &["one"]);
        }
    });
}

#[test]
fn every_engines_annotations_make_pods() {
    Wine::run("annotations", |wine| {
        let engines = [
            ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id", "sandbox"),
            ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID", "sandbox"),
            ("io.kubernetes.docker.type", "io.kubernetes.sandbox.id", "podsandbox"),
        ];
        for (kind_name, id_name, sandbox) in engines {
            for (id, kind) in [("pod", sandbox), ("one", "container")] {
                let bundle = Kind::Argon.lasting_with(wine, id, |spec| {
                    spec["annotations"] = json!({kind_name: kind, id_name: "pod"});
                });
                create(wine, &bundle, id);
                assert_eq!(wine.state(id)["sandboxId"], "pod", "{kind_name}");
            }
            delete(wine, &["one", "pod"]);
        }
    });
}

/// The steps that the log tells of, in order.
fn steps(wine: &Wine) -> Vec<String> {
    let log = std::fs::read_to_string(wine.path("log")).unwrap();
    let done = log.lines().filter(|line| line.contains(r#"msg="done""#));
    done.map(|line| line.split_once("step=\"").unwrap().1.split_once('"').unwrap().0.to_owned())
        .collect()
}

in_all!(the_steps_have_their_order, |wine: &Wine, kind: Kind| {
    const NAMESPACE: &str = "4c9ad5a1-7e0f-4b0f-8a3e-0123456789ab";
    wine.make_namespace(NAMESPACE);
    let bundle = kind.lasting_with(wine, "pod", |spec| {
        in_pod(spec, "sandbox", "pod");
        namespace(spec, NAMESPACE);
    });
    let file = runhcs_tests::wine::windows_path(&wine.path("pid"));
    wine.new_container(&["--debug", "create", "--pid-file", &file], &bundle, "pod").ok();
    let expected: &[&str] = match kind {
        Kind::Argon => &["mounts", "resources", "layers", "container", "shim", "main"],
        _ => &["namespace", "vm", "vm-shim", "container", "shim", "main"],
    };
    let expected = [&["load", "place", "claim"], expected, &["pid-file"]].concat();
    assert_eq!(steps(wine), expected);
    let pid = std::fs::read_to_string(wine.path("pid")).unwrap();
    assert_eq!(pid, wine.state("pod")["pid"].to_string());
    delete(wine, &["pod"]);
    // A member has no VM of its own, and stores nothing of the namespace.
    if kind != Kind::Argon {
        create(wine, &sandbox(wine, kind, "pod"), "pod");
        std::fs::write(wine.path("log"), "").unwrap();
        let member = member(wine, kind, "one", "pod");
        wine.new_container(&["--debug", "create"], &member, "one").ok();
        assert_eq!(steps(wine), ["load", "place", "claim", "container", "shim", "main"]);
        delete(wine, &["one", "pod"]);
    }
});
