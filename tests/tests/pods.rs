//! Pods: several containers in one utility VM, or on this host.

use runhcs_tests::{Bundle, Harness, Isolation, in_both};

in_both!(a_pod_shares_what_its_namespaces_say, |h: &Harness| {
    let sandbox = Bundle::new(h, "pod", &["sleep", "1000"]).in_pod("sandbox", "pod");
    h.new_container(&["run", "--detach"], &sandbox, "pod").ok();
    let pid = h.state("pod")["pid"].clone();
    let shared = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")];
    let web = ["sh", "-c", "echo served > /tmp/index; exec httpd -f -p 127.0.0.1:8080 -h /tmp"];
    let web = Bundle::new(h, "web", &web).in_pod("container", "pod").join(&pid, &shared);
    let web = web.edit(|config| {
        config.as_object_mut().unwrap().remove("hostname");
    });
    let client = Bundle::new(h, "client", &["sleep", "1000"]).in_pod("container", "pod");
    let client = client.join(&pid, &[("network", "net")]);
    for (bundle, id) in [(&web, "web"), (&client, "client")] {
        // Members don't ask for an isolation: they go where their sandbox is.
        let path = bundle.path().to_str().unwrap();
        h.runhcs(&["run", "--detach", "--bundle", path, id]).ok();
        let expected = if h.isolation == Isolation::Vm { "vm" } else { "process" };
        assert_eq!(h.state(id)["isolation"], expected);
        assert_eq!(h.state(id)["sandboxId"], "pod");
    }
    runhcs_tests::eventually(
        || {
            h.runhcs(&["exec", "client", "wget", "-qO-", "http://127.0.0.1:8080/index"]).stdout
                == "served\n"
        },
        || "the other container's server was not reached".into(),
    );
    let namespace = |id: &str, kind: &str| {
        h.runhcs(&["exec", id, "readlink", &format!("/proc/self/ns/{kind}")]).ok().stdout
    };
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace("web", kind), namespace("pod", kind), "{kind}");
    }
    assert_eq!(namespace("client", "net"), namespace("pod", "net"));
    for kind in ["ipc", "uts", "pid", "mnt"] {
        assert_ne!(namespace("client", kind), namespace("pod", kind), "{kind}");
    }
    let exec = h.runhcs(&["exec", "client", "sh", "-c", "exit 42"]);
    assert_eq!(exec.code, 42, "{exec:?}");
    let kernel = h.runhcs(&["exec", "client", "uname", "-r"]).ok().stdout;
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(kernel != host, h.isolation == Isolation::Vm, "{kernel} {host}");
    if h.isolation == Isolation::Vm {
        h.runhcs(&["kill", "pod", "KILL"]).ok();
        h.wait_status("pod", "stopped");
        // The VM lives on without the sandbox's process.
        h.runhcs(&["exec", "client", "true"]).ok();
        h.runhcs(&["delete", "pod"]).refused("is in the VM of pod");
        // Deleting the sandbox by force stops its members with its VM.
        h.runhcs(&["delete", "--force", "pod"]).ok();
        for id in ["client", "web"] {
            h.wait_status(id, "stopped");
            h.runhcs(&["exec", id, "true"])
                .exec_refused("its virtual machine is gone: pod was deleted");
            h.runhcs(&["delete", id]).ok();
        }
        assert_eq!(h.runhcs(&["list", "-q"]).ok().stdout, "");
    } else {
        for id in ["client", "web", "pod"] {
            h.runhcs(&["delete", "--force", id]).ok();
        }
    }
});

in_both!(a_pod_may_share_its_processes, |h: &Harness| {
    // As a pod with `shareProcessNamespace`: the first process of the sandbox is everybody's.
    let sandbox = Bundle::new(h, "pod", &["sleep", "1000"]).in_pod("sandbox", "pod");
    h.new_container(&["run", "--detach"], &sandbox, "pod").ok();
    let member = |name: &str, of: &str| {
        let shared = [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")];
        let bundle = Bundle::new(h, name, &["sleep", "2000"]).in_pod("container", "pod");
        let bundle = bundle.join(&h.state(of)["pid"], &shared).edit(|config| {
            config.as_object_mut().unwrap().remove("hostname");
        });
        let path = bundle.path().to_str().unwrap().to_owned();
        h.runhcs(&["run", "--detach", "--bundle", &path, name])
    };
    member("one", "pod").ok();
    // By the namespaces of a member, which are the sandbox's.
    member("two", "one").ok();
    let command = |pid: u32| {
        let path = format!("/proc/{pid}/cmdline");
        h.runhcs(&["exec", "two", "cat", &path]).ok().stdout.replace('\0', " ")
    };
    assert_eq!(command(1), "sleep 1000 ");
    for id in ["one", "two"] {
        let own =
            h.runhcs(&["exec", "pod", "sh", "-c", "grep -l [2]000 /proc/[0-9]*/cmdline"]).ok();
        assert_eq!(own.stdout.lines().count(), 2, "{id}: {own:?}");
        h.runhcs(&["exec", id, "sh", "-c", "kill -0 1"]).ok();
    }
    // With the first process the namespace ends, and so do the others, but not their VM.
    h.runhcs(&["kill", "pod", "KILL"]).ok();
    for id in ["pod", "one", "two"] {
        h.wait_status(id, "stopped");
    }
    if h.isolation == Isolation::Vm {
        h.runhcs(&["delete", "one"]).ok();
        let dead = serde_json::from_str::<serde_json::Value>(
            &std::fs::read_to_string(h.root().join("pod/main.json")).unwrap(),
        );
        let pid = dead.unwrap()["process"]["pid"].clone();
        let join = |name: &str, kinds: &[(&str, &str)]| {
            let program = ["sh", "-c", "readlink /proc/self/ns/uts; hostname"];
            let bundle = Bundle::new(h, name, &program).in_pod("container", "pod");
            let bundle = bundle.join(&pid, kinds).edit(|config| {
                config.as_object_mut().unwrap().remove("hostname");
            });
            let path = bundle.path().to_str().unwrap().to_owned();
            h.runhcs(&["run", "--bundle", &path, name])
        };
        // What outlives the sandbox's process can still be joined; its pid namespace doesn't.
        join("late", &[("uts", "uts"), ("ipc", "ipc"), ("network", "net")]).ok();
        join("too-late", &[("pid", "pid"), ("uts", "uts")])
            .refused("the pid namespace of container pod has ended");
    }
    for id in ["two", "one", "pod"] {
        h.runhcs(&["delete", "--force", id]).ok();
    }
});

#[test]
fn a_member_does_not_take_a_later_vm_for_its_own() {
    Harness::run(Isolation::Vm, "same name again", |h| {
        let sandbox = Bundle::new(h, "pod", &["sleep", "1000"]).in_pod("sandbox", "pod");
        h.new_container(&["run", "--detach"], &sandbox, "pod").ok();
        let member = Bundle::new(h, "member", &["sleep", "1000"]).in_pod("container", "pod");
        let path = member.path().to_str().unwrap();
        h.runhcs(&["run", "--detach", "--bundle", path, "member"]).ok();
        h.runhcs(&["delete", "--force", "pod"]).ok();
        h.new_container(&["run", "--detach"], &sandbox, "pod").ok();
        assert_eq!(h.state("member")["status"], "stopped");
        h.runhcs(&["kill", "member", "KILL"]).refused("container not running");
        h.runhcs(&["delete", "member"]).ok();
        assert_eq!(h.state("pod")["status"], "running");
        h.runhcs(&["delete", "--force", "pod"]).ok();
    });
}

#[test]
fn a_vm_can_be_joined_by_its_host() {
    Harness::run(Isolation::Vm, "join by host", |h| {
        let host = Bundle::new(h, "host", &["sleep", "1000"]);
        h.new_container(&["run", "--detach"], &host, "host").ok();
        let member = Bundle::new(h, "member", &["sh", "-c", "uname -r; exit 6"]);
        let path = member.path().to_str().unwrap();
        let run = h.runhcs(&["run", "--host", "host", "--bundle", path, "member"]);
        let kernel = h.runhcs(&["exec", "host", "uname", "-r"]).ok().stdout;
        assert_eq!((run.code, run.stdout), (6, kernel));
        h.runhcs(&["create", "--host", "nobody", "--bundle", path, "m"]).refused("host nobody");
        h.runhcs(&["delete", "--force", "host"]).ok();
    });
}

in_both!(contradictions_are_refused, |h: &Harness| {
    let sandbox = Bundle::new(h, "pod", &["sleep", "1000"]).in_pod("sandbox", "pod");
    h.new_container(&["run", "--detach"], &sandbox, "pod").ok();
    let member = Bundle::new(h, "member", &["true"]).in_pod("container", "pod");
    let path = member.path().to_str().unwrap();
    let create = |more: &[&str], message: &str| {
        let arguments = [&["create", "--bundle", path][..], more, &["m"]].concat();
        h.runhcs(&arguments).refused(message);
    };
    match h.isolation {
        Isolation::Process => {
            create(&["--isolation", "vm"], "has no VM");
            create(&["--host", "pod"], "has no VM");
        }
        Isolation::Vm => {
            create(&["--isolation", "process"], "process isolation was asked for");
            create(&["--host", "other"], "is in the VM of pod");
        }
    }
    let stranger = Bundle::new(h, "stranger", &["true"]).in_pod("sandbox", "pod");
    let outcome = h.new_container(&["create"], &stranger, "stranger");
    outcome.refused("must be its own");
    h.runhcs(&["delete", "--force", "pod"]).ok();
});
