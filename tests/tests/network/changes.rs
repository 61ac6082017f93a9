//! What changes in the network of a pod while its VM runs: the VM follows.

use runhcs_tests::{Bundle, Harness, Netns, eventually};
use serde_json::json;

use crate::{in_pod, sandbox, vm, world};

/// Waits until a script in the pod prints what satisfies `so`.
#[track_caller]
fn until(h: &Harness, script: &str, so: impl Fn(&str) -> bool) {
    eventually(|| so(&in_pod(h, script)), || format!("{script}: {}", in_pod(h, script)));
}

#[test]
fn a_vm_follows_what_is_changed_in_its_network() {
    vm("network changes", |h| {
        let (netns, peer) = world(h);
        h.new_container(&["run", "--detach"], &sandbox(h, &netns), "pod").ok();
        let links = in_pod(h, "ip -o link");
        assert_eq!(links.lines().count(), 2, "spare devices are seen: {links}");

        // What is there changes.
        netns.run("ip address del 10.55.0.2/24 dev eth0");
        netns.run("ip address add 10.55.0.7/24 dev eth0");
        netns.run("ip link set eth0 mtu 1300");
        netns.run("ip route add 10.99.0.0/16 via 10.55.0.1");
        h.runhcs(&["sync", "--network", netns.path().to_str().unwrap()]).ok();
        let shown = in_pod(h, "ip -o address show dev eth0; ip -o link show dev eth0");
        assert!(shown.contains("10.55.0.7/24") && !shown.contains("10.55.0.2/"), "{shown}");
        assert!(shown.contains("mtu 1300"), "{shown}");
        assert!(in_pod(h, "ip route").contains("10.99.0.0/16 via 10.55.0.1"));
        in_pod(h, "ping -c 1 -W 10 10.55.0.1");
        netns.run("ip route del 10.99.0.0/16");
        netns.run("ip address del fd55::2/64 dev eth0");
        netns.run("ip address add fd55::7/64 dev eth0 nodad");
        h.runhcs(&["sync", "pod"]).ok();
        let shown = in_pod(h, "ip -o address show dev eth0; ip route");
        assert!(shown.contains("fd55::7/64") && !shown.contains("fd55::2/"), "{shown}");
        assert!(!shown.contains("10.99.0.0"), "{shown}");

        // An interface is added, and nobody asks.
        netns.connect("net1", &peer, "peer1");
        netns.run("ip link set net1 address 02:00:00:00:00:99");
        netns.run("ip address add 10.66.0.2/16 dev net1");
        peer.run("ip address add 10.66.0.1/16 dev peer1");
        until(h, "ip -o address", |shown| shown.contains("10.66.0.2/16"));
        in_pod(h, "ping -c 1 -W 10 10.66.0.1");
        assert!(in_pod(h, "ip link show dev net1").contains("02:00:00:00:00:99"));

        // It goes, and another one comes in its place.
        netns.run("ip link delete net1");
        until(h, "ip -o link", |shown| !shown.contains("net1"));
        netns.connect("net2", &peer, "peer2");
        netns.run("ip address add 10.77.0.2/16 dev net2");
        peer.run("ip address add 10.77.0.1/16 dev peer2");
        h.runhcs(&["sync", "pod"]).ok();
        in_pod(h, "ping -c 1 -W 10 10.77.0.1");
        in_pod(h, "ping -c 1 -W 10 10.55.0.1");
        assert_eq!(in_pod(h, "ip -o link").lines().count(), 3);

        // There is room for so many.
        for (name, other) in [("net3", "peer3"), ("net4", "peer4")] {
            netns.connect(name, &peer, other);
        }
        h.runhcs(&["sync", "pod"]).refused("interface net4 finds no free device");
        in_pod(h, "ping -c 1 -W 10 10.77.0.1");
        h.runhcs(&["delete", "--force", "pod"]).ok();
        let links = netns.run("ip -o link");
        assert!(!links.contains("rhtap"), "{links}");
        for name in ["eth0", "net2", "net3"] {
            assert!(!netns.run(&format!("tc qdisc show dev {name}")).contains("ingress"), "{name}");
        }
    });
}

/// The other end resolves no addresses: it is reached by the neighbours alone that are carried, and
/// what it sends arrives at the hardware address alone that is carried.
#[test]
fn a_vm_follows_neighbours_and_hardware_addresses() {
    vm("neighbours", |h| {
        let (netns, peer) = world(h);
        netns.connect("net1", &peer, "peer1");
        peer.run("ip link set peer1 arp off address 02:00:00:00:00:a1");
        netns.run("ip link set net1 address 02:00:00:00:00:b1");
        for (mine, theirs) in [("10.66.0.2/16", "10.66.0.1/16"), ("fd66::2/64", "fd66::1/64")] {
            netns.run(&format!("ip address add {mine} dev net1{}", no_detection(mine)));
            peer.run(&format!("ip address add {theirs} dev peer1{}", no_detection(theirs)));
        }
        // Both ends know each other's hardware address.
        let acquaint = |pod_mac: &str, peer_mac: &str| {
            for (mine, theirs) in [("10.66.0.2", "10.66.0.1"), ("fd66::2", "fd66::1")] {
                let entry = |address: &str, mac: &str, device: &str| {
                    format!("ip neigh replace {address} lladdr {mac} dev {device} nud permanent")
                };
                netns.run(&entry(theirs, peer_mac, "net1"));
                peer.run(&entry(mine, pod_mac, "peer1"));
            }
        };
        let reach = || {
            for address in ["10.66.0.1", "fd66::1"] {
                in_pod(h, &format!("ping -c 1 -W 10 {address}"));
            }
        };
        acquaint("02:00:00:00:00:b1", "02:00:00:00:00:a1");
        h.new_container(&["run", "--detach"], &sandbox(h, &netns), "pod").ok();
        reach();

        // Replaced: everybody has another hardware address.
        netns.run("ip link set net1 address 02:00:00:00:00:b2");
        peer.run("ip link set peer1 address 02:00:00:00:00:a2");
        acquaint("02:00:00:00:00:b2", "02:00:00:00:00:a2");
        h.runhcs(&["sync", "pod"]).ok();
        assert!(in_pod(h, "ip link show dev net1").contains("02:00:00:00:00:b2"));
        assert_eq!(
            permanent(h),
            ["10.66.0.1 net1 02:00:00:00:00:a2", "fd66::1 net1 02:00:00:00:00:a2"]
        );
        reach();

        // And again, and one is added, and nobody asks.
        netns.run("ip link set net1 address 02:00:00:00:00:b3");
        peer.run("ip link set peer1 address 02:00:00:00:00:a3");
        acquaint("02:00:00:00:00:b3", "02:00:00:00:00:a3");
        netns.run("ip neigh add fd55::9 lladdr 02:00:00:00:00:c1 dev eth0 nud permanent");
        let changed = [
            "10.66.0.1 net1 02:00:00:00:00:a3",
            "fd55::9 eth0 02:00:00:00:00:c1",
            "fd66::1 net1 02:00:00:00:00:a3",
        ];
        eventually(|| permanent(h) == changed, || format!("{:?}", permanent(h)));
        until(h, "ip link show dev net1", |shown| shown.contains("02:00:00:00:00:b3"));
        reach();

        // Removed.
        netns.run("ip neigh del fd66::1 dev net1");
        netns.run("ip neigh del fd55::9 dev eth0");
        let left = ["10.66.0.1 net1 02:00:00:00:00:a3"];
        eventually(|| permanent(h) == left, || format!("{:?}", permanent(h)));
        h.runhcs(&["delete", "--force", "pod"]).ok();
    });
}

/// What has `ip address add` not ask whether somebody else has the address.
fn no_detection(address: &str) -> &'static str {
    if address.contains("::") { " nodad" } else { "" }
}

/// The permanent neighbours that the pod has, each with its interface and hardware address.
fn permanent(h: &Harness) -> Vec<String> {
    let shown = in_pod(h, "ip neigh show nud permanent");
    let mut found: Vec<String> = shown
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            [words[0], words[2], words[4]].join(" ")
        })
        .collect();
    found.sort();
    found
}

#[test]
fn a_vm_follows_routes_of_ipv6() {
    vm("routes", |h| {
        let (netns, peer) = world(h);
        for address in ["2001:db8:1::1/128", "2001:db8:2::1/128"] {
            peer.run(&format!("ip address add {address} dev lo"));
        }
        peer.run("ip address add fd55::3/64 dev peer0 nodad");
        netns.run("ip -6 route del default");
        netns.run("ip -6 route add 2001:db8:1::/48 via fd55::1 metric 77");
        // The same destination by two ways, of which the metric tells which is taken.
        netns.run("ip -6 route add 2001:db8:2::/48 via fd55::1 metric 300");
        netns.run("ip -6 route add 2001:db8:2::/48 via fd55::3 metric 200");
        // As Calico does it: a gateway that no prefix puts on the link.
        netns.run("ip -6 route add fd99::1 dev eth0 metric 50");
        netns.run("ip -6 route add 2001:db8:3::/48 via fd99::1 dev eth0");
        h.new_container(&["run", "--detach"], &sandbox(h, &netns), "pod").ok();
        let first = [
            "2001:db8:1::/48 via fd55::1 metric 77",
            "2001:db8:2::/48 via fd55::1 metric 300",
            "2001:db8:2::/48 via fd55::3 metric 200",
            "2001:db8:3::/48 via fd99::1 metric 1024",
            "fd99::1 metric 50",
        ];
        assert_eq!(ipv6_routes(h), first);
        in_pod(h, "ping -c 1 -W 10 2001:db8:1::1");
        in_pod(h, "ping -c 1 -W 10 2001:db8:2::1");

        // Added, replaced and removed.
        netns.run("ip -6 route add default via fd55::1");
        netns.run("ip -6 route change 2001:db8:1::/48 via fd55::3 metric 77");
        netns.run("ip -6 route del 2001:db8:2::/48 via fd55::3 metric 200");
        netns.run("ip -6 route del 2001:db8:3::/48");
        netns.run("ip -6 route del fd99::1");
        h.runhcs(&["sync", "pod"]).ok();
        let second = [
            "2001:db8:1::/48 via fd55::3 metric 77",
            "2001:db8:2::/48 via fd55::1 metric 300",
            "default via fd55::1 metric 1024",
        ];
        assert_eq!(ipv6_routes(h), second);
        in_pod(h, "ping -c 1 -W 10 2001:db8:1::1");
        in_pod(h, "ping -c 1 -W 10 2001:db8::1");

        // The same, and nobody asks.
        netns.run("ip -6 route add 2001:db8:4::/48 via fd55::3 metric 9");
        netns.run("ip -6 route change 2001:db8:1::/48 via fd55::1 metric 77");
        netns.run("ip -6 route del 2001:db8:2::/48");
        let third = [
            "2001:db8:1::/48 via fd55::1 metric 77",
            "2001:db8:4::/48 via fd55::3 metric 9",
            "default via fd55::1 metric 1024",
        ];
        eventually(|| ipv6_routes(h) == third, || format!("{:?}", ipv6_routes(h)));
        h.runhcs(&["delete", "--force", "pod"]).ok();
    });
}

/// The pod's routes that aren't the kernel's own: destination, gateway and metric.
fn ipv6_routes(h: &Harness) -> Vec<String> {
    let mut found = Vec::new();
    for line in in_pod(h, "ip -6 route show dev eth0").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |word: &str| {
            let at = words.iter().position(|found| *found == word)?;
            Some(format!(" {word} {}", words[at + 1]))
        };
        let (gateway, metric) = (after("via"), after("metric"));
        let by_kernel = ["fd55::/64", "fe80::/64", "multicast"].contains(&words[0]);
        if !by_kernel {
            found.push([Some(words[0].into()), gateway, metric].into_iter().flatten().collect());
        }
    }
    found.sort();
    found
}

#[test]
fn a_pod_without_a_network_can_be_given_one() {
    vm("network later", |h| {
        let pod = Bundle::new(h, "pod", &["sleep", "1000"]).in_pod("sandbox", "pod");
        let pod = pod.edit(|config| {
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(["CAP_NET_RAW"]);
            }
        });
        h.new_container(&["run", "--detach"], &pod, "pod").ok();
        assert_eq!(in_pod(h, "ip -o link").lines().count(), 1);
        let peer = Netns::new(h, "peer");
        // As Docker does it: by the pid of the container.
        let pid = h.state("pod")["pid"].as_u64().unwrap();
        peer.run(&format!("ip link add peer0 type veth peer name eth0 netns {pid}"));
        peer.run("ip address add 10.88.7.1/24 dev peer0");
        peer.run("ip link set peer0 up");
        let script = "ip address add 10.88.7.2/24 dev eth0 && ip link set eth0 up";
        let entered = std::process::Command::new("nsenter")
            .args(["--target", &pid.to_string(), "--net", "sh", "-c", script])
            .status();
        assert!(entered.unwrap().success());
        h.runhcs(&["sync", "pod"]).ok();
        in_pod(h, "ping -c 1 -W 10 10.88.7.1");
        h.runhcs(&["delete", "--force", "pod"]).ok();
    });
}
