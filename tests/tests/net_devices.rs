//! `linux.netDevices`: devices of the host that a container gets, in both isolations.
//!
//! The host's network is played by a namespace, for interfaces of the tests' own one are
//! everybody's.

use std::path::Path;
use std::process::Output;

use runhcs_tests::{Bundle, Harness, Isolation, Netns, in_both};
use serde_json::{Value, json};

/// Runs the command in the namespace that plays the host's.
fn runhcs(h: &Harness, host: &Netns, args: &[&str]) -> Output {
    let runtime = h.runtime();
    let words: Vec<&str> =
        [runtime.to_str().unwrap()].into_iter().chain(args.iter().copied()).collect();
    host.command(&words).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A host with a device that has everything which is to go with it, and some that is not.
fn host(h: &Harness) -> Netns {
    let host = Netns::new(h, "host");
    host.run("ip link add host0 type veth peer name peer0");
    host.run("ip link set host0 address 02:00:00:00:00:33 mtu 1337");
    host.run("ip address add 192.0.2.7/24 dev host0");
    host.run("ip address add 198.51.100.8/24 dev host0 scope link");
    host.run("ip address add 2001:db8::7/64 dev host0 nodad");
    host
}

fn with(devices: &Value, netns: Option<&Path>, config: &mut Value) {
    config["linux"]["netDevices"] = devices.clone();
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    let network = namespaces.iter_mut().find(|ns| ns["type"] == "network").unwrap();
    if let Some(path) = netns {
        network["path"] = json!(path);
    }
}

in_both!(a_device_moves_with_its_addresses_and_is_up, |h: &Harness| {
    let host = host(h);
    let bundle = Bundle::new(h, "box", &["sh", "-c", "ip address show dev net0"])
        .edit(|config| with(&json!({ "host0": { "name": "net0" } }), None, config));
    let output = runhcs(h, &host, &["run", "--bundle", bundle.path().to_str().unwrap(), "box"]);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    for part in ["02:00:00:00:00:33", "mtu 1337", "192.0.2.7/24", "2001:db8::7/64", ",UP"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Virtual devices end with their namespace.
    assert!(!host.run("ip -o link").contains("host0"));
    if h.isolation == Isolation::Process {
        assert!(!said.contains("198.51.100.8"), "an address of the link's scope: {said}");
    }
});

in_both!(a_device_stays_in_a_namespace_that_outlives_the_container, |h: &Harness| {
    let (host, pod) = (host(h), Netns::new(h, "pod"));
    let bundle = Bundle::new(h, "box", &["sh", "-c", "ip -o address show dev host0"])
        .edit(|config| with(&json!({ "host0": {} }), Some(pod.path()), config));
    let output = runhcs(h, &host, &["run", "--bundle", bundle.path().to_str().unwrap(), "box"]);
    assert!(output.status.success() && said(&output).contains("192.0.2.7/24"), "{output:?}");
    assert!(pod.run("ip -o address show dev host0").contains("192.0.2.7/24"));
});

in_both!(a_failure_brings_devices_back_as_they_were, |h: &Harness| {
    let (host, pod) = (host(h), Netns::new(h, "pod"));
    host.run("ip link add host1 type veth peer name peer1");
    host.run("ip link set host0 up");
    pod.run("ip link add taken type bridge");
    let list = "ip -o address show dev host0 scope global";
    let before = host.run(list);
    for (devices, message) in [
        // The first has moved by then.
        (
            json!({ "host0": { "name": "net0" }, "host1": { "name": "taken" } }),
            "a device \"taken\"",
        ),
        (
            json!({ "host0": { "name": "net0" }, "host2": {} }),
            "host2: find it: the host has no such device",
        ),
    ] {
        let bundle = Bundle::new(h, "box", &["true"])
            .edit(|config| with(&devices, Some(pod.path()), config));
        let output = runhcs(h, &host, &["run", "--bundle", bundle.path().to_str().unwrap(), "box"]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(message), "{message}: {said}");
        assert!(!pod.run("ip -o link").contains("net0"));
        let after = host.run(list);
        for address in ["192.0.2.7/24", "2001:db8::7/64"] {
            assert!(before.contains(address) && after.contains(address), "{before} {after}");
        }
        assert!(host.run("ip -o link show dev host0").contains(",UP"));
        std::fs::remove_dir_all(bundle.path()).unwrap();
    }
    // A later step's failure.
    let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
        with(&json!({ "host0": { "name": "net0" } }), Some(pod.path()), config);
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    });
    let output = runhcs(h, &host, &["run", "--bundle", bundle.path().to_str().unwrap(), "box"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(host.run(list).contains("192.0.2.7/24"));
    assert!(!pod.run("ip -o link").contains("net0"));
});

in_both!(the_kernel_numbers_devices, |h: &Harness| {
    let host = host(h);
    host.run("ip link add host1 type veth peer name peer1");
    let script = "ip -o link show dev net0 && ip -o link show dev net1";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        with(&json!({ "host0": { "name": "net%d" }, "host1": { "name": "net%d" } }), None, config);
    });
    let output = runhcs(h, &host, &["run", "--bundle", bundle.path().to_str().unwrap(), "box"]);
    assert!(output.status.success(), "{}", said(&output));
});

#[test]
fn without_a_network_namespace_devices_are_refused() {
    Harness::run(Isolation::Process, "no namespace", |h| {
        let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
            config["linux"]["netDevices"] = json!({ "host0": {} });
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "network");
        });
        h.new_container(&["create"], &bundle, "box").refused("linux.netDevices: needs a network");
    });
}

#[test]
fn a_device_joins_a_pod_that_runs() {
    Harness::run(Isolation::Vm, "joins", |h| {
        let (host, netns) = (host(h), Netns::new(h, "pod-network"));
        let sandbox = Bundle::new(h, "pod", &["sleep", "1000"])
            .in_pod("sandbox", "pod")
            .edit(|config| with(&json!({}), Some(netns.path()), config));
        h.new_container(&["run", "--detach"], &sandbox, "pod").ok();
        let script = "ip -o address show dev host0";
        let member = Bundle::new(h, "box", &["sh", "-c", script])
            .in_pod("container", "pod")
            .edit(|config| with(&json!({ "host0": {} }), Some(netns.path()), config));
        let path = member.path().to_str().unwrap();
        let output = runhcs(h, &host, &["run", "--bundle", path, "box"]);
        assert!(output.status.success() && said(&output).contains("192.0.2.7/24"), "{output:?}");
        // One that has a network of its own gets none.
        let own = Bundle::new(h, "own", &["true"])
            .in_pod("container", "pod")
            .edit(|config| with(&json!({ "host1": {} }), None, config));
        let output = runhcs(h, &host, &["run", "--bundle", own.path().to_str().unwrap(), "own"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("linux.netDevices: a further container"), "{output:?}");
        h.runhcs(&["delete", "--force", "pod"]).ok();
    });
}
