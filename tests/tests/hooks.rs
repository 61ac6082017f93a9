//! Hooks: when they are run, what they are told, and what becomes of a container when one fails.

use std::path::Path;

use runhcs_tests::config::hook;
use runhcs_tests::{Bundle, Harness, Isolation, Netns, in_both};
use serde_json::{Value, json};

/// Writes a line into `said`: the point and the state.
fn say(said: &Path, point: &str) -> String {
    format!("(printf '{point} '; cat; echo) >> {}", said.display())
}

/// The points that were said, and the states.
fn heard(said: &Path) -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(said).unwrap_or_default();
    let line = |line: &str| {
        let (point, state) = line.split_once(' ').unwrap();
        (point.to_owned(), serde_json::from_str(state).unwrap())
    };
    text.lines().map(line).collect()
}

fn points(said: &Path) -> Vec<String> {
    heard(said).into_iter().map(|(point, _)| point).collect()
}

in_both!(hooks_run_on_the_host_with_the_state, |h: &Harness| {
    let said = h.path("said");
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]).edit(|config| {
        config["annotations"] = json!({ "some": "thing" });
        for point in ["prestart", "createRuntime", "poststart", "poststop"] {
            config["hooks"][point] = hook(&say(&said, point));
        }
    });
    h.new_container(&["create"], &bundle, "box").ok();
    assert_eq!(points(&said), ["prestart", "createRuntime"]);
    h.runhcs(&["start", "box"]).ok();
    let pid = h.state("box")["pid"].clone();
    h.runhcs(&["delete", "--force", "box"]).ok();
    let heard = heard(&said);
    let statuses = [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ];
    assert_eq!(heard.len(), statuses.len(), "{heard:?}");
    for ((point, state), (expected, status)) in heard.iter().zip(statuses) {
        assert_eq!((point.as_str(), &state["status"]), (expected, &json!(status)), "{state}");
        assert_eq!(state["id"], "box");
        assert_eq!(state["bundle"], json!(bundle.path()));
        assert_eq!(state["annotations"]["some"], "thing");
    }
    assert!(heard[0].1["pid"].as_u64() > Some(1), "{heard:?}");
    assert_eq!(heard[2].1["pid"], pid);
});

in_both!(start_container_hooks_run_in_the_container, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["cat", "/tmp/made"]).edit(|config| {
        config["hooks"]["startContainer"] = hook("cat > /tmp/made");
    });
    let state = h.new_container(&["run"], &bundle, "box").ok().stdout;
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!((&state["id"], &state["status"]), (&json!("box"), &json!("created")), "{state}");
});

in_both!(an_early_hook_that_fails_ends_the_creation, |h: &Harness| {
    for failing in ["prestart", "createRuntime"] {
        let said = h.path(&format!("said-{failing}"));
        let bundle = Bundle::new(h, failing, &["true"]).edit(|config| {
            config["hooks"][failing] = hook("echo it is broken >&2; exit 3");
            config["hooks"]["poststop"] = hook(&say(&said, "poststop"));
        });
        let message =
            format!("error running {failing} hook #0: /bin/sh: exit status: 3: it is broken");
        h.new_container(&["create"], &bundle, failing).refused(&message);
        h.runhcs(&["state", failing]).refused("does not exist");
        // What the first hooks made, the last ones unmake.
        assert_eq!(points(&said), ["poststop"]);
    }
});

#[test]
fn a_failing_hook_in_the_new_namespaces_ends_the_creation() {
    Harness::run(Isolation::Process, "create container", |h| {
        let said = h.path("said");
        for (script, timeout, why) in [
            ("echo it is broken >&2; exit 3", 100, "exit status: 3: it is broken"),
            ("exec sleep 1000", 1, "it did not end within 1 s"),
        ] {
            let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
                config["hooks"]["createContainer"] = hook(script);
                config["hooks"]["createContainer"][0]["timeout"] = json!(timeout);
                config["hooks"]["poststop"] = hook(&say(&said, "poststop"));
            });
            let create = h.new_container(&["create"], &bundle, "box");
            let create = create.refused("error running createContainer hook #0: /bin/sh: ");
            assert!(create.stderr.contains(why), "{create:?}");
            h.runhcs(&["state", "box"]).refused("does not exist");
            std::fs::remove_dir_all(bundle.path()).unwrap();
        }
        assert_eq!(points(&said), ["poststop", "poststop"]);
    });
}

in_both!(a_start_container_hook_that_fails_keeps_the_program_from_running, |h: &Harness| {
    for (script, timeout, why) in [
        ("echo it is broken >&2; exit 3", 100, "exit status: 3"),
        ("exec sleep 1000", 1, "it did not end within 1 s"),
    ] {
        let bundle = Bundle::new(h, "box", &["touch", "/ran"]).edit(|config| {
            config["hooks"]["startContainer"] = hook(script);
            config["hooks"]["startContainer"][0]["timeout"] = json!(timeout);
        });
        h.new_container(&["create"], &bundle, "box").ok();
        let start = h.runhcs(&["start", "box"]);
        let start = start.refused("error running startContainer hook #0: /bin/sh: ");
        assert!(start.stderr.contains(why), "{start:?}");
        h.wait_status("box", "stopped");
        assert!(!bundle.path().join("rootfs/ran").exists());
        h.runhcs(&["delete", "box"]).ok();
        std::fs::remove_dir_all(bundle.path()).unwrap();
    }
});

in_both!(a_poststart_hook_that_fails_ends_the_container, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]).edit(|config| {
        config["hooks"]["poststart"] = hook("exit 3");
    });
    h.new_container(&["create"], &bundle, "box").ok();
    h.runhcs(&["start", "box"]).refused("error running poststart hook #0: /bin/sh: exit status: 3");
    h.wait_status("box", "stopped");
    h.runhcs(&["delete", "box"]).ok();
});

in_both!(a_poststop_hook_that_fails_keeps_nothing, |h: &Harness| {
    let said = h.path("said");
    let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
        let failing = hook("echo it is broken >&2; exit 3")[0].clone();
        let next = hook(&say(&said, "poststop"))[0].clone();
        config["hooks"]["poststop"] = json!([failing, next]);
    });
    h.new_container(&["run"], &bundle, "box").ok();
    assert_eq!(points(&said), ["poststop"]);
    let log = std::fs::read_to_string(h.path("log")).unwrap();
    assert!(log.contains("poststop hook #0: /bin/sh") && log.contains("it is broken"), "{log}");
});

in_both!(a_hook_has_its_time, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
        config["hooks"]["createRuntime"] = hook("exec sleep 1000");
        config["hooks"]["createRuntime"][0]["timeout"] = json!(1);
    });
    h.new_container(&["create"], &bundle, "box").refused("it did not end within 1 s");
});

// As Docker does it: the hook finds the new network namespace by the pid, and furnishes it.
in_both!(an_early_hook_furnishes_the_network, |h: &Harness| {
    let peer = Netns::new(h, "peer");
    let script = format!(
        "pid=$(jq .pid); exec 8< /proc/$pid/ns/net; nsenter --net={} sh -c '
        ip link add eth0 type veth peer name peer0 &&
        ip link set eth0 netns /proc/self/fd/8 &&
        ip address add 10.56.0.1/24 dev peer0 && ip link set peer0 up' &&
        nsenter --net=/proc/self/fd/8 sh -c '
        ip address add 10.56.0.2/24 dev eth0 && ip link set eth0 up'",
        peer.path().display()
    );
    let script = script.replace('\n', " ");
    let ping = "ip -o address show eth0; ping -c 1 -W 10 10.56.0.1 >&2 && echo reached";
    let bundle = Bundle::new(h, "box", &["sh", "-c", ping]).edit(|config| {
        config["hooks"]["prestart"] = hook(&script);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_NET_RAW"]);
        }
    });
    let shown = h.new_container(&["run"], &bundle, "box").ok().stdout;
    assert!(shown.contains("10.56.0.2/24") && shown.contains("reached"), "{shown}");
});

#[test]
fn a_container_in_a_vm_is_found_in_its_pods_network_by_its_pid() {
    Harness::run(Isolation::Vm, "pid", |h| {
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let network =
            |id: &str| std::fs::read_link(format!("/proc/{}/ns/net", h.state(id)["pid"])).unwrap();
        let pod = Bundle::new(h, "pod", &["sleep", "1000"]).in_pod("sandbox", "pod");
        h.new_container(&["run", "--detach"], &pod, "pod").ok();
        assert_ne!(network("pod"), own);
        let run = |name: &str, join: bool| {
            let said = h.path(&format!("said-{name}"));
            let script = format!("readlink /proc/$(jq .pid)/ns/net > {}", said.display());
            let mut bundle = Bundle::new(h, name, &["sleep", "1000"]).in_pod("container", "pod");
            if join {
                bundle = bundle.join(&h.state("pod")["pid"], &[("network", "net")]);
                bundle = bundle.edit(|config| config["hooks"]["createRuntime"] = hook(&script));
            }
            let path = bundle.path().to_str().unwrap().to_owned();
            h.runhcs(&["run", "--detach", "--bundle", &path, name]).ok();
            std::fs::read_to_string(said).unwrap_or_default()
        };
        let seen = run("member", true);
        assert_eq!(network("member"), network("pod"));
        assert_eq!(Path::new(seen.trim()), network("pod"));
        run("apart", false);
        assert!(![own, network("pod")].contains(&network("apart")));
        for id in ["member", "apart", "pod"] {
            h.runhcs(&["delete", "--force", id]).ok();
        }
    });
}

#[test]
fn hooks_that_cannot_be_had_in_a_vm_are_refused() {
    Harness::run(Isolation::Vm, "refusals", |h| {
        let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
            config["hooks"]["createContainer"] = hook("true");
        });
        h.new_container(&["create"], &bundle, "box").refused("hooks.createContainer: such hooks");
        let pod = Bundle::new(h, "pod", &["sleep", "1000"]).in_pod("sandbox", "pod");
        h.new_container(&["run", "--detach"], &pod, "pod").ok();
        let apart = Bundle::new(h, "apart", &["true"]).in_pod("container", "pod").edit(|config| {
            config["hooks"]["createRuntime"] = hook("true");
        });
        let path = apart.path().to_str().unwrap();
        h.runhcs(&["create", "--bundle", path, "apart"])
            .refused("prestart and createRuntime hooks");
        h.runhcs(&["delete", "--force", "pod"]).ok();
    });
}
