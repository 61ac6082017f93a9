//! What the state is kept in: keys of the registry that Windows forgets, and the configuration of
//! network namespaces among them.

use runhcs_tests::wine::{Wine, in_pod, namespace};
use serde_json::{Value, json};

use crate::access::{probe, sha256};
use crate::kinds::{Kind, in_all};

const NAMESPACE: &str = "4c9ad5a1-7e0f-4b0f-8a3e-0123456789ab";
/// The store's own key for configurations of namespaces.
const CONFIGURATIONS: &str = "~namespaces";

/// Asks for a key that would stay in another one, which a volatile one can't have.
#[track_caller]
fn permanence(wine: &Wine, key: &str) -> String {
    probe(wine, &["permanence", key])
}

in_all!(keys_are_volatile, |wine: &Wine, kind: Kind| {
    wine.make_namespace(NAMESPACE);
    let bundle = kind.lasting_with(wine, "one", |spec| {
        in_pod(spec, "sandbox", "one");
        namespace(spec, NAMESPACE);
    });
    wine.new_container(&["create"], &bundle, "one").ok();
    assert_eq!(permanence(wine, r"SOFTWARE\Microsoft"), "permanent");
    let root = wine.registry_root();
    let mut keys = vec![root.clone(), format!(r"{root}\one")];
    if kind != Kind::Argon {
        keys.push(format!(r"{root}\{CONFIGURATIONS}"));
    }
    for key in keys {
        assert_eq!(permanence(wine, &key), "volatile", "{key}");
    }
    wine.runhcs(&["delete", "--force", "one"]).ok();
});

/// The name of a namespace's configuration.
fn value() -> String {
    sha256(NAMESPACE)
}

/// A sandbox in the namespace.
fn sandbox(wine: &Wine, kind: Kind, id: &str) {
    let bundle = kind.lasting_with(wine, id, |spec| {
        in_pod(spec, "sandbox", id);
        namespace(spec, &NAMESPACE.to_uppercase());
    });
    wine.new_container(&["create"], &bundle, id).ok();
}

fn leads_to_its_vm(wine: &Wine, kind: Kind) {
    wine.make_namespace(NAMESPACE);
    sandbox(wine, kind, "one");
    let unique_id = wine.stored("one", "record")["unique_id"].clone();
    assert_ne!(unique_id, "");
    let stored = json!({
        "namespace": NAMESPACE,
        "container_id": "one",
        "host_unique_id": unique_id,
    });
    assert_eq!(wine.stored(CONFIGURATIONS, &value()), stored);
    // A member of the pod is in the same namespace, which is its sandbox's.
    let member = kind.lasting_with(wine, "two", |spec| {
        in_pod(spec, "container", "one");
        namespace(spec, NAMESPACE);
    });
    wine.new_container(&["create"], &member, "two").ok();
    wine.runhcs(&["delete", "--force", "two"]).ok();
    assert_eq!(wine.stored(CONFIGURATIONS, &value()), stored);

    let sync = || wine.runhcs(&["sync", "--network", NAMESPACE]);
    let with = |field: &str, value: Value| {
        let mut changed = stored.clone();
        changed[field] = value;
        changed
    };
    sync().ok();
    for (changed, reason) in [
        (with("host_unique_id", json!("another")), "an earlier VM of one"),
        (with("container_id", json!("nobody")), "nobody"),
        (with("host_unique_id", json!("")), "is damaged"),
        (with("container_id", json!("")), "is damaged"),
        (with("namespace", json!("")), "is damaged"),
        (with("namespace", json!("another")), "is damaged"),
    ] {
        wine.overwrite(CONFIGURATIONS, &value(), &changed);
        sync().refused(reason);
    }
    wine.overwrite(CONFIGURATIONS, &value(), &stored);
    sync().ok();
    // Another one's configuration takes the place of one that is no use any more.
    wine.overwrite(CONFIGURATIONS, &value(), &with("container_id", json!("")));
    sandbox(wine, kind, "three");
    assert_eq!(wine.stored(CONFIGURATIONS, &value())["container_id"], "three");
    // So it stays when the earlier one goes.
    wine.runhcs(&["delete", "--force", "one"]).ok();
    sync().ok();
    wine.runhcs(&["delete", "--force", "three"]).ok();
    sync().refused(NAMESPACE);
}

#[test]
fn a_linux_vms_namespace_leads_to_it() {
    Wine::run("namespace configuration lcow", |wine| leads_to_its_vm(wine, Kind::Lcow));
}

#[test]
fn a_windows_vms_namespace_leads_to_it() {
    Wine::run("namespace configuration xenon", |wine| leads_to_its_vm(wine, Kind::Xenon));
}

#[test]
fn a_namespace_without_a_vm_leads_nowhere() {
    Wine::run("namespace configuration argon", |wine| {
        wine.make_namespace(NAMESPACE);
        sandbox(wine, Kind::Argon, "one");
        assert_eq!(wine.state("one")["status"], "created");
        wine.runhcs(&["sync", "--network", NAMESPACE]).refused(NAMESPACE);
        wine.runhcs(&["delete", "--force", "one"]).ok();
    });
}
