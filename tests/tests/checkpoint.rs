//! `checkpoint` and `restore`: what CRIU is told, and what is made of what it does, checked with a
//! program that takes its place. CRIU itself depends on the kernel too much: Debian's doesn't know
//! the layout of the newest one's processes.

use std::process::Command;

use runhcs_tests::{Bundle, Harness, Isolation, Outcome};
use serde_json::json;

/// Takes CRIU's place: writes its arguments down, ends the container's init on a dump, and begins
/// another process on a restore.
const STAND_IN: &str = "#!/bin/sh\n\
    echo \"$@\" >>\"$NOTES\"\n\
    case $1 in\n\
    dump) while [ $# -gt 0 ]; do [ \"$1\" = --tree ] && kill -9 $2; shift; done ;;\n\
    restore)\n\
        while [ $# -gt 0 ]; do [ \"$1\" = --pidfile ] && file=$2; shift; done\n\
        sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >\"$file\" ;;\n\
    broken) exit 1 ;;\n\
    esac\n";

struct StandIn<'h>(&'h Harness);

impl StandIn<'_> {
    fn new(h: &Harness) -> StandIn<'_> {
        std::fs::create_dir(h.path("programs")).unwrap();
        std::fs::write(h.path("script"), STAND_IN).unwrap();
        // By a child, so that no descriptor of ours keeps it from being executed.
        let mut install = Command::new("install");
        install.arg("-m755").args([h.path("script"), h.path("programs/criu")]);
        assert!(install.status().unwrap().success());
        StandIn(h)
    }

    fn runhcs(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.0.command(arguments);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.0.path("programs").display()));
        command.env("NOTES", self.0.path("notes"));
        self.0.finish(command)
    }

    /// What it was told since it was last asked.
    fn notes(&self) -> String {
        let notes = std::fs::read_to_string(self.0.path("notes")).unwrap_or_default();
        let _ = std::fs::remove_file(self.0.path("notes"));
        notes
    }
}

#[test]
fn criu_is_told_what_the_options_say() {
    Harness::run(Isolation::Process, "criu_is_told_what_the_options_say", |h| {
        let criu = StandIn::new(h);
        let bundle =
            Bundle::new(h, "box", &["sleep", "1000"]).bind(&h.path("tmp"), "/data", &["rbind"]);
        let path = bundle.path().to_str().unwrap().to_owned();
        h.new_container(&["run", "--detach"], &bundle, "box").ok();
        let images = h.path("images").to_str().unwrap().to_owned();
        let common = ["--image-path", &images, "--tcp-established", "--file-locks", "--shell-job"];

        let pre = [&["checkpoint", "--pre-dump"], &common[..], &["box"]].concat();
        criu.runhcs(&pre).ok();
        let told = criu.notes();
        assert!(told.starts_with("pre-dump ") && told.contains(" --track-mem"), "{told}");
        assert_eq!(h.state("box")["status"], "running");

        let more = ["--leave-running", "--empty-ns", "network", "--manage-cgroups-mode", "soft"];
        let more = [&more[..], &["--page-server", "127.0.0.1:27", "--ext-unix-sk", "--auto-dedup"]]
            .concat();
        criu.runhcs(&[&["checkpoint"], &common[..], &more, &["box"]].concat());
        let told = criu.notes();
        for part in [
            "dump ",
            "--tcp-established",
            "--file-locks",
            "--shell-job",
            "--ext-unix-sk",
            "--auto-dedup",
            "--leave-running",
            "--empty-ns net",
            "--manage-cgroups=soft",
            "--page-server --address 127.0.0.1 --port 27",
            "--external mnt[/data]:/data",
            "--freeze-cgroup /sys/fs/cgroup/",
        ] {
            assert!(told.contains(part), "{part} is missing: {told}");
        }
        h.runhcs(&["delete", "--force", "box"]).ok();

        h.new_container(&["run", "--detach"], &bundle, "box").ok();
        criu.runhcs(&[&["checkpoint"], &common[..], &["box"]].concat()).ok();
        h.runhcs(&["state", "box"]).refused("box");
        let _ = criu.notes();
        let pid_file = h.path("pid").to_str().unwrap().to_owned();
        let restore = ["restore", "--detach", "--bundle", &path, "--pid-file", &pid_file];
        criu.runhcs(&[&restore[..], &common[..], &["box"]].concat()).ok();
        let told = criu.notes();
        let source = h.path("tmp");
        assert!(told.starts_with("restore ") && told.contains("--restore-detached"), "{told}");
        assert!(told.contains(&format!("--external mnt[/data]:{}", source.display())), "{told}");
        let state = h.state("box");
        assert_eq!(state["status"], "running");
        assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), state["pid"].to_string());
        // What CRIU makes is in the container's groups.
        let processes = h.runhcs(&["ps", "--format", "json", "box"]).ok().stdout;
        let processes: Vec<u32> = serde_json::from_str(&processes).unwrap();
        assert_eq!(json!(processes), json!([state["pid"]]));
        h.runhcs(&["delete", "--force", "box"]).ok();
    });
}

#[test]
fn what_cant_be_checkpointed_is_refused() {
    Harness::run(Isolation::Process, "what_cant_be_checkpointed_is_refused", |h| {
        let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
        h.new_container(&["create"], &bundle, "box").ok();
        h.runhcs(&["checkpoint", "box"]).refused("checkpoint container box that is created");
        h.runhcs(&["start", "box"]).ok();
        let images = h.path("images").to_str().unwrap().to_owned();
        let checkpoint = |more: &[&str]| {
            let mut command =
                h.command(&[&["checkpoint", "--image-path", &images], more, &["box"]].concat());
            // ps and others are found, CRIU is not.
            command.env("PATH", h.path("nowhere"));
            h.finish(command)
        };
        checkpoint(&["--parent-path", "/absolute"]).refused("--parent-path");
        checkpoint(&["--parent-path", "missing"]).refused("--parent-path");
        checkpoint(&["--page-server", "nowhere"]).refused("ADDRESS:PORT");
        checkpoint(&["--manage-cgroups-mode", "nonsense"]).refused("nonsense");
        checkpoint(&[]).refused("it is not installed");
        let named = ["--criu", "/nowhere/criu", "checkpoint", "--image-path", &images, "box"];
        h.runhcs(&named).refused("/nowhere/criu dump: it is not installed");
        assert_eq!(h.state("box")["status"], "running");
        h.runhcs(&["delete", "--force", "box"]).ok();
        let path = bundle.path().to_str().unwrap().to_owned();
        let restore = ["restore", "--bundle", &path, "--image-path", "/nonexistent", "box"];
        h.runhcs(&restore).refused("/nonexistent");
        h.runhcs(&["state", "box"]).refused("box");
    });
}

#[test]
fn a_container_in_a_vm_is_refused() {
    Harness::run(Isolation::Vm, "a_container_in_a_vm_is_refused", |h| {
        let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
        h.new_container(&["run", "--detach"], &bundle, "box").ok();
        h.runhcs(&["checkpoint", "box"]).refused("guest kernel's");
        assert_eq!(h.state("box")["status"], "running");
        let images = h.path("images");
        std::fs::create_dir(&images).unwrap();
        let restore = |bundle: &Bundle| {
            let (bundle, images) = (bundle.path().to_str().unwrap(), images.to_str().unwrap());
            h.runhcs(&["restore", "--bundle", bundle, "--image-path", images, "again"])
        };
        // Whether the VM is asked for or joined, it isn't left out without a word.
        let asking = Bundle::new(h, "asking", &["sleep", "1000"]).edit(|config| {
            config["annotations"] = json!({ "io.runhcs.isolation": "vm" });
        });
        restore(&asking).refused("CRIU on this host can't restore");
        let member = Bundle::new(h, "member", &["sleep", "1000"]).in_pod("container", "box");
        restore(&member).refused("CRIU on this host can't restore");
        h.runhcs(&["state", "again"]).refused("does not exist");
        h.runhcs(&["delete", "--force", "box"]).ok();
    });
}
