//! Failures: each step of the creation flow in turn, bad input, and crashes. Nothing is ever left.

#[path = "../../crates/vm-shim/tests/support/fake_image.rs"]
mod fake_image;

use runhcs_tests::{Bundle, Harness, Isolation, Netns, in_both};
use serde_json::json;

in_both!(every_step_that_fails_undoes_all, |h: &Harness| {
    let steps: &[&str] = match h.isolation {
        Isolation::Process => &[
            "load",
            "place",
            "claim",
            "notify-socket",
            "plan",
            "resources",
            "container",
            "main",
            "pid-file",
        ],
        Isolation::Vm => &[
            "load",
            "place",
            "claim",
            "namespace",
            "network",
            "hooks",
            "vm-options",
            "vm-group-plan",
            "vm-group",
            "vm",
            "guest-spec",
            "container",
            "shim",
            "main",
            "pid-file",
        ],
    };
    let netns = Netns::new(h, "netns");
    let bundle =
        Bundle::new(h, "box", &["sleep", "1000"]).in_pod("sandbox", "box").edit(|config| {
            if h.isolation == Isolation::Vm {
                let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
                let network = namespaces.iter_mut().find(|ns| ns["type"] == "network").unwrap();
                network["path"] = json!(netns.path());
            }
        });
    let pid_file = h.path("pid");
    for step in steps {
        let [flag, isolation] = h.flag();
        let mut command = h.command(&[
            "create",
            flag,
            isolation,
            "--pid-file",
            pid_file.to_str().unwrap(),
            "--bundle",
            bundle.path().to_str().unwrap(),
            "box",
        ]);
        command.env("RUNHCS_FAIL_AT", step);
        h.finish(command).refused(&format!("failure injected after step `{step}`"));
        assert!(!pid_file.exists(), "the pid file is left after {step}");
        h.runhcs(&["state", "box"]).refused("does not exist");
    }
    // And without a failure the same container can be made.
    h.new_container(&["create"], &bundle, "box").ok();
    h.runhcs(&["delete", "--force", "box"]).ok();
});

in_both!(bad_input_changes_nothing, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["true"]);
    let config = bundle.path().join("config.json");
    let good = std::fs::read_to_string(&config).unwrap();
    let edited = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value: serde_json::Value = serde_json::from_str(&good).unwrap();
        change(&mut value);
        value.to_string()
    };
    let create = |message: &str| {
        h.new_container(&["create"], &bundle, "box").refused(message);
    };
    for (text, message) in [
        ("{".to_owned(), "config.json"),
        (String::new(), "config.json"),
        (edited(&|c| c["process"]["args"] = json!("sh")), "process.args"),
        (edited(&|c| c["process"]["args"] = json!([])), "process.args"),
        (edited(&|c| c["process"]["cwd"] = json!("relative")), "process.cwd"),
        (edited(&|c| c["root"]["path"] = json!("missing")), "missing"),
        (edited(&|c| c["root"]["path"] = json!("../outside")), "outside"),
        (edited(&|c| c["annotations"] = json!({ "io.runhcs.isolation": "strong" })), "strong"),
        (
            edited(&|c| c["linux"]["namespaces"][0]["type"] = json!("nope")),
            "linux.namespaces[0].type",
        ),
    ] {
        std::fs::write(&config, text).unwrap();
        create(message);
    }
    std::fs::remove_file(&config).unwrap();
    create("config.json");
    std::fs::write(&config, &good).unwrap();
    for id in ["a/b", "..", ".", "", "ä", &"x".repeat(1025)] {
        let outcome = h.new_container(&["create"], &bundle, id);
        assert_eq!(outcome.code, 1, "{id:?}: {outcome:?}");
    }
    h.runhcs(&["create", "--isolation", "strong", "box"]).refused("strong");
    assert_eq!(h.runhcs(&["create", "--no-such-flag", "box"]).code, 1);
    assert_eq!(h.runhcs(&["no-such-verb"]).code, 1);
    h.runhcs(&["kill", "box", "NOSIG"]).refused("NOSIG");
    h.runhcs(&["delete", "box"]).refused("does not exist");
    h.runhcs(&["delete", "--force", "box"]).ok();
});

in_both!(an_id_of_the_greatest_length_works, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["true"]);
    let id = "x".repeat(1024);
    h.new_container(&["run"], &bundle, &id).ok();
});

in_both!(a_damaged_state_is_reported_and_can_be_cleared, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    std::fs::write(h.root().join("box/record.json"), "{").unwrap();
    h.runhcs(&["state", "box"]).refused("damaged");
    let list = h.runhcs(&["list"]).ok();
    assert!(list.stderr.contains("box") && !list.stdout.contains("box"), "{list:?}");
    h.runhcs(&["delete", "--force", "box"]).ok();
});

in_both!(a_killed_main_process_is_seen_as_stopped, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    // Init, or the container shim that stands for it.
    kill(&h.state("box")["pid"].to_string());
    h.wait_status("box", "stopped");
    h.runhcs(&["delete", "box"]).ok();
});

in_both!(a_creation_that_was_cut_off_can_be_cleared, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    let path = bundle.path().to_str().unwrap();
    let [flag, isolation] = h.flag();
    for pause in [1, 4, 16, 64, 256, 1024, 2048] {
        let (mut child, _) =
            h.spawn(h.command(&["create", flag, isolation, "--bundle", path, "box"]));
        std::thread::sleep(std::time::Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
        h.runhcs(&["delete", "--force", "box"]).ok();
        h.runhcs(&["state", "box"]).refused("does not exist");
    }
});

fn kill(pid: &str) {
    assert!(std::process::Command::new("kill").args(["-9", pid]).status().unwrap().success());
}

fn vm(name: &str, body: impl FnOnce(&Harness)) {
    Harness::run(Isolation::Vm, name, body);
}

#[test]
fn an_agent_that_ends_the_link_half_way_is_an_error_and_leaves_nothing() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/vm-shim/tests/fake_agent/init.rs");
    for (behaviour, message) in
        [("close", "closed"), ("half-reply", "ended within a message"), ("half-hello", "hello")]
    {
        vm("hostile agent", |h| {
            let image =
                fake_image::fake_image(&runhcs_tests::target().join("guest-image"), &source);
            h.write_config_for(image.path(), &format!("kernel-args = \"fake={behaviour}\""));
            let bundle = Bundle::new(h, "box", &["true"]);
            h.new_container(&["create"], &bundle, "box").refused(message);
            h.runhcs(&["state", "box"]).refused("does not exist");
        });
    }
}

#[test]
fn what_a_vm_needs_and_lacks_is_named() {
    vm("lacks", |h| {
        let bundle = Bundle::new(h, "box", &["true"]);
        let create = |message: &str| {
            h.new_container(&["create"], &bundle, "box").refused(message);
        };
        h.write_config("qemu = \"/no/qemu\"");
        create("/no/qemu");
        h.write_config("accelerator = \"kvm\"");
        if !std::fs::read_to_string("/proc/cpuinfo").unwrap().contains("svm") {
            create("KVM");
        }
        h.write_config(
            "kernel-args = \"init=/nothing rdinit=/nothing\"\nboot-timeout-seconds = 20",
        );
        create("console");
        let config = std::fs::read_to_string(h.path("config.toml")).unwrap();
        let lacking = config.replace("initramfs.img", "no-such.img");
        std::fs::write(h.path("config.toml"), lacking).unwrap();
        create("runhcs-guest-image build");
        std::fs::write(h.path("config.toml"), "isolaton = \"vm\"").unwrap();
        create("line 1");
    });
}
