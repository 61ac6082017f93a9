//! Compute network namespaces: VMs that follow theirs, and namespaces that are shared.

use runhcs_tests::wine::{Wine, in_pod, namespace};
use serde_json::json;

use crate::kinds::Kind;

const NAMESPACE: &str = "4c9ad5a1-7e0f-4b0f-8a3e-0123456789ab";
const FIRST: &str = "11111111-7e0f-4b0f-8a3e-0123456789ab";
const SECOND: &str = "22222222-7e0f-4b0f-8a3e-0123456789ab";

/// The endpoints that the VMs have adapters for.
fn adapters(wine: &Wine) -> Vec<String> {
    let mut endpoints = Vec::new();
    for system in wine.sim.snapshot().unwrap().systems {
        for (place, adapter) in &system.resources {
            if place.starts_with("VirtualMachine/Devices/NetworkAdapters/") {
                endpoints.push(adapter["EndpointId"].as_str().unwrap().to_owned());
            }
        }
    }
    endpoints.sort();
    endpoints
}

fn follows(wine: &Wine, kind: Kind) {
    wine.make_namespace(NAMESPACE);
    for endpoint in [FIRST, SECOND] {
        wine.make_endpoint(endpoint);
    }
    wine.change_namespace(NAMESPACE, "Add", FIRST);
    let bundle = kind.lasting_with(wine, "one", |spec| {
        in_pod(spec, "sandbox", "one");
        // Names of namespaces don't differ by case.
        namespace(spec, &NAMESPACE.to_uppercase());
    });
    wine.new_container(&["run", "--detach"], &bundle, "one").ok();
    assert_eq!(adapters(wine), [FIRST]);
    wine.change_namespace(NAMESPACE, "Add", SECOND);
    wine.runhcs(&["sync", "one"]).ok();
    assert_eq!(adapters(wine), [FIRST, SECOND]);
    wine.runhcs(&["sync", "one"]).ok();
    assert_eq!(adapters(wine), [FIRST, SECOND]);
    wine.change_namespace(NAMESPACE, "Remove", FIRST);
    wine.runhcs(&["sync", "--network", &NAMESPACE.to_uppercase()]).ok();
    assert_eq!(adapters(wine), [SECOND]);
    wine.runhcs(&["sync", "--network", FIRST]).refused(FIRST);
    wine.runhcs(&["sync", "--network", "nonsense"]).refused("nonsense");
    // Its members are in the same namespace, and can't be in another.
    let member = kind.changed(wine, "two", |spec| {
        in_pod(spec, "container", "one");
        namespace(spec, NAMESPACE);
    });
    assert_eq!(wine.new_container(&["run"], &member, "two").code, 7);
    wine.make_namespace(SECOND);
    let stray = kind.changed(wine, "three", |spec| {
        in_pod(spec, "container", "one");
        namespace(spec, SECOND);
    });
    wine.new_container(&["create"], &stray, "three").refused("network");
    wine.runhcs(&["delete", "--force", "one"]).ok();
    wine.runhcs(&["sync", "--network", NAMESPACE]).refused(NAMESPACE);
}

#[test]
fn a_linux_vm_follows_its_namespace() {
    Wine::run("sync lcow", |wine| follows(wine, Kind::Lcow));
}

#[test]
fn a_windows_vm_follows_its_namespace() {
    Wine::run("sync xenon", |wine| follows(wine, Kind::Xenon));
}

/// The document that a container was made from.
fn document(wine: &Wine, id: &str) -> serde_json::Value {
    let calls = wine.calls().into_iter();
    let mut made = calls.filter(|call| call.function == "HcsCreateComputeSystem");
    let prefix = format!("{id} ");
    let call = made.find(|call| call.about.starts_with(&prefix)).unwrap();
    serde_json::from_str(&call.about[prefix.len()..]).unwrap()
}

#[test]
fn a_namespace_is_shared_by_the_name_of_a_container() {
    Wine::run("shared namespace", |wine| {
        wine.make_namespace(NAMESPACE);
        let one = Kind::Argon.lasting_with(wine, "one", |spec| namespace(spec, NAMESPACE));
        wine.new_container(&["create"], &one, "one").ok();
        let networking = &document(wine, "one")["Container"]["Networking"];
        assert_eq!(networking["Namespace"], NAMESPACE);
        let sharing = |name: &str, with: &str| {
            Kind::Argon.lasting_with(wine, name, |spec| {
                spec["windows"]["network"] = json!({"networkSharedContainerName": with});
            })
        };
        wine.new_container(&["create"], &sharing("two", "one"), "two").ok();
        let networking = &document(wine, "two")["Container"]["Networking"];
        assert_eq!(networking["Namespace"], NAMESPACE);
        // A container that isn't ours may be another program's.
        wine.new_container(&["create"], &sharing("three", "nobody"), "three").ok();
        let networking = &document(wine, "three")["Container"]["Networking"];
        assert_eq!(networking["Namespace"], serde_json::Value::Null);
        assert_eq!(networking["NetworkSharedContainerName"], "nobody");
        wine.runhcs(&["sync", "one"]).refused("not in a VM");
        for id in ["one", "two", "three"] {
            wine.runhcs(&["delete", "--force", id]).ok();
        }
    });
}

#[test]
fn a_namespace_has_to_be_there() {
    Wine::run("missing namespace", |wine| {
        for (kind, id) in [(Kind::Argon, "a"), (Kind::Xenon, "x"), (Kind::Lcow, "l")] {
            let bundle = kind.changed(wine, id, |spec| namespace(spec, NAMESPACE));
            wine.new_container(&["create"], &bundle, id).refused(NAMESPACE);
            let bundle = kind.changed(wine, id, |spec| namespace(spec, "nonsense"));
            wine.new_container(&["create"], &bundle, id).refused("nonsense");
            let left = wine.left();
            assert!(left.is_empty(), "{kind:?} left:\n{}", left.join("\n"));
        }
    });
}
