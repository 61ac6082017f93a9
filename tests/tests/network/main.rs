//! The network of a pod in a VM: that of the network namespace which its configuration names.

mod changes;

use std::path::PathBuf;

use runhcs_tests::{Bundle, Harness, Isolation, Netns, Server, eventually};
use serde_json::json;

fn vm(name: &str, body: impl FnOnce(&Harness)) {
    Harness::run(Isolation::Vm, name, body);
}

/// A sandbox in a network namespace.
fn sandbox(h: &Harness, netns: &Netns) -> Bundle {
    let path = json!(netns.path());
    Bundle::new(h, "pod", &["sleep", "1000"]).in_pod("sandbox", "pod").edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        let network = namespaces.iter_mut().find(|ns| ns["type"] == "network").unwrap();
        network["path"] = path;
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_NET_RAW", "CAP_NET_BIND_SERVICE"]);
        }
    })
}

/// Two namespaces, the pod's and the rest of the world, connected as a CNI plugin would.
fn world(h: &Harness) -> (Netns, Netns) {
    let (pod, peer) = (Netns::new(h, "netns"), Netns::new(h, "peer"));
    pod.connect("eth0", &peer, "peer0");
    pod.run("ip link set eth0 address 02:00:00:00:00:42 mtu 1400");
    peer.run("ip link set peer0 mtu 1400");
    pod.run("ip address add 10.55.0.2/24 dev eth0");
    pod.run("ip address add fd55::2/64 dev eth0 nodad");
    peer.run("ip address add 10.55.0.1/24 dev peer0");
    peer.run("ip address add fd55::1/64 dev peer0 nodad");
    // What is reached through the gateway only.
    peer.run("ip address add 192.0.2.1/32 dev lo");
    peer.run("ip address add 2001:db8::1/128 dev lo");
    pod.run("ip route add default via 10.55.0.1");
    pod.run("ip -6 route add default via fd55::1");
    (pod, peer)
}

/// Serves a page from a directory, which is returned, until the server is dropped.
fn serve_page(h: &Harness, from: &Netns, text: &str) -> (PathBuf, Server) {
    let pages = h.path("pages");
    std::fs::create_dir(&pages).unwrap();
    std::fs::write(pages.join("index.html"), text).unwrap();
    let server = from.serve(&pages);
    (pages, server)
}

fn in_pod(h: &Harness, script: &str) -> String {
    h.runhcs(&["exec", "pod", "sh", "-c", script]).ok().stdout
}

#[test]
fn a_pods_network_is_carried_into_its_vm() {
    vm("network", |h| {
        let (netns, peer) = world(h);
        let before = netns.run("tc qdisc show dev eth0");
        let (pages, _server) = serve_page(h, &peer, "from outside\n");
        h.new_container(&["run", "--detach"], &sandbox(h, &netns), "pod").ok();

        let eth0 = in_pod(h, "ip link show eth0");
        assert!(eth0.contains("02:00:00:00:00:42") && eth0.contains("mtu 1400"), "{eth0}");
        let addresses = in_pod(h, "ip address show eth0");
        assert!(addresses.contains("10.55.0.2/24"), "{addresses}");
        assert!(addresses.contains("fd55::2/64"), "{addresses}");
        let routes = in_pod(h, "ip route; ip -6 route");
        for route in ["default via 10.55.0.1", "10.55.0.0/24", "default via fd55::1"] {
            assert!(routes.contains(route), "{route} in {routes}");
        }

        // Outwards, on the link and through the gateway, in both families.
        for host in ["10.55.0.1", "192.0.2.1", "[fd55::1]", "[2001:db8::1]"] {
            let page = in_pod(h, &format!("wget -qO- http://{host}:80/index.html"));
            assert_eq!(page, "from outside\n", "{host}");
        }
        // More than one packet, and more than one segment.
        let big: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(pages.join("big"), &big).unwrap();
        let sum = "wget -qO- http://10.55.0.1:80/big | sha256sum";
        let expected = std::process::Command::new("sha256sum").arg(pages.join("big")).output();
        let expected = String::from_utf8(expected.unwrap().stdout).unwrap();
        assert_eq!(in_pod(h, sum).split(' ').next(), expected.split(' ').next());

        // Inwards: a container that joined later serves, for it has the pod's network.
        let script = "echo from inside > /tmp/index.html; exec httpd -f -p 80 -h /tmp";
        let web = Bundle::new(h, "web", &["sh", "-c", script]).in_pod("container", "pod");
        let web = web.join(&h.state("pod")["pid"], &[("network", "net")]);
        h.runhcs(&["run", "--detach", "--bundle", web.path().to_str().unwrap(), "web"]).ok();
        for host in ["10.55.0.2", "[fd55::2]"] {
            let get = format!("/bin/busybox wget -qO- http://{host}:80/index.html");
            let words: Vec<&str> = get.split(' ').collect();
            eventually(
                || peer.command(&words).output().unwrap().stdout == b"from inside\n",
                || format!("{host} was not reached"),
            );
        }
        // One that has its own network namespace has its loopback only.
        let own = Bundle::new(h, "own", &["ip", "-o", "link"]).in_pod("container", "pod");
        let path = own.path().to_str().unwrap();
        let own = h.runhcs(&["run", "--bundle", path, "own"]).ok().stdout;
        assert!(own.contains("lo:") && !own.contains("eth0"), "{own}");

        for id in ["web", "pod"] {
            h.runhcs(&["delete", "--force", id]).ok();
        }
        assert_eq!(netns.run("tc qdisc show dev eth0"), before);
        let links = netns.run("ip -o link");
        assert!(!links.contains("rhtap"), "{links}");
        // And the namespace has its network back.
        let page = netns.run("/bin/busybox wget -qO- http://10.55.0.1:80/index.html");
        assert_eq!(page, "from outside\n");
    });
}

/// As container managers have it: they write the file and mount it.
#[test]
fn names_are_looked_up_where_the_configuration_says() {
    vm("names", |h| {
        let (netns, peer) = world(h);
        let _server = serve_page(h, &peer, "by name\n");
        let names = peer.answer_names([192, 0, 2, 1].into());
        let resolver = h.path("resolv.conf");
        std::fs::write(&resolver, "nameserver 10.55.0.1\nsearch example.test\n").unwrap();
        let bundle = sandbox(h, &netns).bind(&resolver, "/etc/resolv.conf", &["rbind", "ro"]);
        h.new_container(&["run", "--detach"], &bundle, "pod").ok();
        assert_eq!(in_pod(h, "wget -qO- http://web.example.test/index.html"), "by name\n");
        let question = names.questions.recv().unwrap();
        let name = b"\x03web\x07example\x04test\x00";
        assert_eq!(&question[12..12 + name.len()], name);
        h.runhcs(&["delete", "--force", "pod"]).ok();
    });
}

#[test]
fn several_interfaces_keep_their_names() {
    vm("interfaces", |h| {
        let (netns, peer) = world(h);
        netns.connect("net1", &peer, "peer1");
        netns.run("ip address add 10.66.0.2/16 dev net1");
        peer.run("ip address add 10.66.0.1/16 dev peer1");
        netns.run("ip route add 10.77.0.0/16 via 10.66.0.1 metric 50");
        // As Calico does it: a gateway that no address puts on the link.
        netns.run("ip neighbour add 169.254.1.1 lladdr 02:00:00:00:00:77 dev net1 nud permanent");
        netns.run("ip route add 169.254.1.1 dev net1 scope link");
        netns.run("ip -6 neighbour add fd66::9 lladdr 02:00:00:00:00:66 dev net1 nud permanent");
        h.new_container(&["run", "--detach"], &sandbox(h, &netns), "pod").ok();
        for (name, address) in [("eth0", "10.55.0.2/24"), ("net1", "10.66.0.2/16")] {
            let shown = in_pod(h, &format!("ip -o address show dev {name}"));
            assert!(shown.contains(address), "{shown}");
        }
        let routes = in_pod(h, "ip route");
        for route in ["10.77.0.0/16 via 10.66.0.1 dev net1", "169.254.1.1 dev net1"] {
            assert!(routes.contains(route), "{route} in {routes}");
        }
        let neighbours = in_pod(h, "ip neigh");
        for neighbour in [
            "169.254.1.1 dev net1 lladdr 02:00:00:00:00:77",
            "fd66::9 dev net1 lladdr 02:00:00:00:00:66",
        ] {
            assert!(neighbours.contains(neighbour), "{neighbour} in {neighbours}");
        }
        in_pod(h, "ping -c 1 -W 10 10.66.0.1");
        h.runhcs(&["delete", "--force", "pod"]).ok();
    });
}

#[test]
fn a_vm_that_was_killed_leaves_a_network_that_can_be_carried_again() {
    vm("network again", |h| {
        let (netns, _peer) = world(h);
        for _ in 0..2 {
            let bundle = sandbox(h, &netns);
            h.new_container(&["run", "--detach"], &bundle, "pod").ok();
            in_pod(h, "ping -c 1 -W 10 10.55.0.1");
            let lock = std::fs::read_to_string(h.root().join("pod/vm/lock")).unwrap();
            let killed = std::process::Command::new("kill").args(["-9", lock.trim()]).status();
            assert!(killed.unwrap().success());
            h.wait_status("pod", "stopped");
            h.runhcs(&["delete", "pod"]).ok();
            std::fs::remove_dir_all(bundle.path()).unwrap();
        }
    });
}

#[test]
fn what_cannot_be_carried_is_refused() {
    vm("network refusals", |h| {
        let netns = Netns::new(h, "netns");
        let bundle = sandbox(h, &netns);
        let create = |message: &str| {
            h.new_container(&["create"], &bundle, "pod").refused(message);
        };
        netns.run("ip tuntap add tun0 mode tun");
        netns.run("ip link set tun0 up");
        create("tun0 is not an Ethernet device");
        netns.run("ip link delete tun0");
        netns.run("ip link add br0 type bridge");
        netns.run("ip link add br1 type bridge");
        for (name, address) in [("br0", "10.0.0.1/24"), ("br1", "10.0.1.1/24")] {
            netns.run(&format!("ip address add {address} dev {name}"));
            netns.run(&format!("ip link set {name} up"));
        }
        netns.run("ip route add 10.9.0.0/16 nexthop via 10.0.0.2 nexthop via 10.0.1.2");
        create("10.9.0.0/16 has several next hops");
        let refused = |path: &str, message: &str| {
            let path = json!(path);
            let bundle = sandbox(h, &netns).edit(|config| {
                let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
                let network = namespaces.iter_mut().find(|ns| ns["type"] == "network").unwrap();
                network["path"] = path;
            });
            h.new_container(&["create"], &bundle, "pod").refused(message);
        };
        std::fs::remove_dir_all(bundle.path()).unwrap();
        refused("/proc/self/ns/net", "the host's own network");
        std::fs::remove_dir_all(bundle.path()).unwrap();
        refused("/no/such/netns", "/no/such/netns");
        std::fs::remove_dir_all(bundle.path()).unwrap();
        let host = Bundle::new(h, "host", &["true"]).edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|ns| ns["type"] != "network");
        });
        h.new_container(&["create"], &host, "host").refused("linux.namespaces has no network");
    });
}

#[test]
fn what_has_no_vm_has_nothing_to_follow() {
    Harness::run(Isolation::Process, "no sync", |h| {
        let bundle = Bundle::new(h, "box", &["true"]);
        h.new_container(&["create"], &bundle, "box").ok();
        h.runhcs(&["sync", "box"]).refused("container box is not in a VM");
        h.runhcs(&["sync", "--network", "/run/netns/x"]).refused("/run/netns/x");
        h.runhcs(&["sync", "none"]).refused("container none does not exist");
        h.runhcs(&["sync"]).refused("required");
        h.runhcs(&["delete", "--force", "box"]).ok();
    });
}
