//! Containers of an ordinary user.

use std::path::{Path, PathBuf};
use std::process::Command;

use runhcs_tests::config::{in_user_namespace, map_ids};
use runhcs_tests::{Bundle, Harness, Isolation, Netns, Outcome, User};
use serde_json::{Value, json};

/// A bundle of the user's, with the configuration that `spec --rootless` writes.
fn bundle(h: &Harness, user: &User<'_>, name: &str, program: &[&str]) -> PathBuf {
    let path = Bundle::new(h, name, &["true"]).path().to_owned();
    user.own(&path);
    std::fs::remove_file(path.join("config.json")).unwrap();
    h.finish(user.runhcs(&["spec", "--rootless", "--bundle", text(&path)])).ok();
    edit(&path, |config| {
        config["process"]["args"] = json!(program);
        config["process"]["terminal"] = json!(false);
        config["root"]["readonly"] = json!(false);
    });
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn edit(bundle: &Path, change: impl FnOnce(&mut Value)) {
    let path = bundle.join("config.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
}

/// Maps a full range: root is the user, the others are subordinate ids.
fn map_all(user: &User<'_>, config: &mut Value) {
    let map = json!([
        { "containerID": 0, "hostID": user.id, "size": 1 },
        { "containerID": 1, "hostID": user.subordinate, "size": 65_536 },
    ]);
    map_ids(&mut config["linux"], &map);
}

fn run(h: &Harness, user: &User<'_>, bundle: &Path) -> Outcome {
    h.finish(user.runhcs(&["run", "--bundle", text(bundle), "box"]))
}

/// What is left in the directory where the user's containers have their state by default.
fn left(user: &User<'_>) -> Vec<String> {
    let entries = std::fs::read_dir(user.path("run/runhcs")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with('~')).collect()
}

#[test]
fn an_ordinary_user_runs_a_container() {
    Harness::run(Isolation::Process, "an_ordinary_user_runs_a_container", |h| {
        let user = User::new(h);
        let script = "id; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; \
                      touch /tmp/made; echo x > /dev/null; test -c /dev/zero && exit 7";
        let bundle = bundle(h, &user, "box", &["sh", "-c", script]);
        let run = run(h, &user, &bundle);
        assert_eq!(run.code, 7, "{run:?}");
        let words: Vec<&str> = run.stdout.split_whitespace().collect();
        let id = user.id.to_string();
        assert_eq!(words, ["uid=0", "gid=0", "0", &id, "1", "0", &id, "1", "deny"], "{run:?}");
        use std::os::unix::fs::MetadataExt;
        let made = std::fs::metadata(bundle.join("rootfs/tmp/made")).unwrap();
        assert_eq!((made.uid(), made.gid()), (user.id, user.id));
        assert!(left(&user).is_empty(), "{:?}", left(&user));
        for (program, code) in [("true", 0), ("false", 1)] {
            edit(&bundle, |config| config["process"]["args"] = json!([program]));
            assert_eq!(self::run(h, &user, &bundle).code, code, "{program}");
        }
        edit(&bundle, |config| config["process"]["args"] = json!(["nope"]));
        self::run(h, &user, &bundle).refused("executable file not found");
        assert!(left(&user).is_empty(), "{:?}", left(&user));
    });
}

#[test]
fn every_verb_works_for_an_ordinary_user() {
    Harness::run(Isolation::Process, "every_verb_works_for_an_ordinary_user", |h| {
        let user = User::new(h);
        let bundle = bundle(h, &user, "box", &["sleep", "1000"]);
        let runhcs = |arguments: &[&str]| h.finish(user.runhcs(arguments));
        let status = || {
            let state: Value =
                serde_json::from_str(&runhcs(&["state", "box"]).ok().stdout).unwrap();
            state["status"].as_str().unwrap().to_owned()
        };
        runhcs(&["create", "--bundle", text(&bundle), "box"]).ok();
        assert_eq!(status(), "created");
        runhcs(&["exec", "box", "true"]).exec_refused("only once it has been started");
        runhcs(&["start", "box"]).ok();
        assert_eq!(status(), "running");
        let exec = runhcs(&["exec", "box", "sh", "-c", "id -u; cat /proc/1/cmdline; exit 9"]);
        assert_eq!((exec.code, exec.stdout.as_str()), (9, "0\nsleep\x001000\x00"), "{exec:?}");
        runhcs(&["exec", "--detach", "box", "sleep", "1001"]).ok();
        let ps = runhcs(&["ps", "box"]).ok().stdout;
        assert!(ps.contains("sleep 1000") && ps.contains("sleep 1001"), "{ps}");
        assert_eq!(ps.lines().count(), 3, "{ps}");
        let list = runhcs(&["list"]).ok().stdout;
        assert!(list.contains("running"), "{list}");
        // It has no control group for what these need.
        runhcs(&["pause", "box"]).refused("no control group with a freezer");
        runhcs(&["update", "--memory", "64M", "box"]).refused("no control groups");
        runhcs(&["delete", "box"]).refused("not stopped");
        runhcs(&["kill", "--all", "box", "KILL"]).ok();
        runhcs_tests::eventually(|| status() == "stopped", status);
        runhcs(&["delete", "box"]).ok();
        // Deleting one that runs takes its other processes, too.
        runhcs(&["run", "--detach", "--bundle", text(&bundle), "box"]).ok();
        runhcs(&["exec", "--detach", "box", "sleep", "1001"]).ok();
        runhcs(&["delete", "--force", "box"]).ok();
        assert!(left(&user).is_empty(), "{:?}", left(&user));
    });
}

#[test]
fn subordinate_ids_are_mapped_by_the_systems_programs() {
    Harness::run(Isolation::Process, "subordinate_ids", |h| {
        let user = User::new(h);
        let script = "id; touch /tmp/made; cat /proc/self/setgroups";
        let bundle = bundle(h, &user, "box", &["sh", "-c", script]);
        let writable = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(bundle.join("rootfs/tmp"), writable).unwrap();
        edit(&bundle, |config| {
            map_all(&user, config);
            config["process"]["user"] = json!({ "uid": 5, "gid": 6, "additionalGids": [7, 8] });
        });
        let outcome = run(h, &user, &bundle).ok();
        assert_eq!(outcome.stdout, "uid=5 gid=6 groups=7,8\nallow\n", "{outcome:?}");
        use std::os::unix::fs::MetadataExt;
        let made = std::fs::metadata(bundle.join("rootfs/tmp/made")).unwrap();
        let expected = (user.subordinate + 4, user.subordinate + 5);
        assert_eq!((made.uid(), made.gid()), expected);

        // The container's processes aren't the user's, and the user reaches them nevertheless.
        edit(&bundle, |config| config["process"]["args"] = json!(["sleep", "1000"]));
        let runhcs = |arguments: &[&str]| h.finish(user.runhcs(arguments));
        runhcs(&["run", "--detach", "--bundle", text(&bundle), "box"]).ok();
        let exec = runhcs(&["exec", "--user", "9:10", "box", "id"]).ok();
        assert!(exec.stdout.starts_with("uid=9 gid=10"), "{exec:?}");
        runhcs(&["kill", "box", "KILL"]).ok();
        runhcs(&["delete", "--force", "box"]).ok();

        edit(&bundle, |config| config["linux"]["uidMappings"][1]["hostID"] = json!(1_234_567));
        let refused = run(h, &user, &bundle).refused("linux.uidMappings: run newuidmap");
        assert!(refused.stderr.contains("/etc/subuid"), "{refused:?}");
        let mut command = user.runhcs(&["run", "--bundle", text(&bundle), "box"]);
        command.env("PATH", user.path("home"));
        h.finish(command).refused("newuidmap: it is not installed");
        assert!(left(&user).is_empty(), "{:?}", left(&user));
    });
}

#[test]
fn what_an_ordinary_user_cannot_have_is_named() {
    Harness::run(Isolation::Process, "what_an_ordinary_user_cannot_have", |h| {
        let user = User::new(h);
        let bundle = bundle(h, &user, "box", &["true"]);
        let config = std::fs::read(bundle.join("config.json")).unwrap();
        let refused = |message: &str, change: &dyn Fn(&mut Value)| {
            std::fs::write(bundle.join("config.json"), &config).unwrap();
            edit(&bundle, change);
            run(h, &user, &bundle).refused(message);
            assert!(left(&user).is_empty(), "{:?}", left(&user));
        };
        let limit = json!({ "memory": { "limit": 64 << 20 } });
        refused("linux.resources.memory: this user may not make control groups", &|config| {
            config["linux"]["resources"] = limit.clone();
        });
        refused("linux.cgroupsPath: /elsewhere: this user may not", &|config| {
            config["linux"]["cgroupsPath"] = json!("/elsewhere");
        });
        refused("linux.namespaces: an ordinary user's container needs a user", &|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "user");
            // Without it they would be refused first.
            map_ids(&mut config["linux"], &json!([]));
        });
        refused("linux.gidMappings: is needed", &|config| {
            config["linux"]["gidMappings"] = json!([]);
        });
        refused("process.user.uid: 5 is not mapped", &|config| {
            config["process"]["user"]["uid"] = json!(5);
        });
        refused("process.user.additionalGids[0]: 5 is not mapped", &|config| {
            config["process"]["user"]["additionalGids"] = json!([5]);
        });
        refused("options[4]: 5 is not mapped by linux.gidMappings", &|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            let pts = mounts.iter_mut().find(|mount| mount["destination"] == "/dev/pts").unwrap();
            pts["options"] = json!(["nosuid", "noexec", "newinstance", "mode=0620", "gid=5"]);
        });
        refused("it takes a new network namespace", &|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            let sys = mounts.iter_mut().find(|mount| mount["destination"] == "/sys").unwrap();
            *sys = json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs" });
        });
        refused("make device /dev/mem2 in the container", &|config| {
            config["linux"]["devices"] =
                json!([{ "path": "/dev/mem2", "type": "c", "major": 1, "minor": 1 }]);
        });
        std::fs::write(bundle.join("config.json"), &config).unwrap();
        let vm = ["run", "--isolation", "vm", "--bundle", text(&bundle), "box"];
        h.finish(user.runhcs(&vm)).refused("VM isolation needs root");
        let mut nowhere = user.runhcs(&["list"]);
        nowhere.env_remove("XDG_RUNTIME_DIR");
        h.finish(nowhere).refused("set XDG_RUNTIME_DIR or give --root");
        // Elsewhere it needs no such directory.
        let root = user.path("run/elsewhere");
        let mut elsewhere =
            user.runhcs(&["--root", text(&root), "run", "--bundle", text(&bundle), "box"]);
        elsewhere.env_remove("XDG_RUNTIME_DIR");
        h.finish(elsewhere).ok();
    });
}

/// A part of the version 2 hierarchy that is the user's, and the command line by which one gets
/// into it, with that hierarchy at the usual place.
struct Delegated {
    group: PathBuf,
}

impl Delegated {
    fn new(h: &Harness, user: &User<'_>) -> Option<Self> {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let root = root.into_iter().find(|path| path.join("cgroup.controllers").exists())?;
        let group = root.join("runhcs-e2e").join(&h.token).join("user");
        std::fs::create_dir_all(group.join("session")).unwrap();
        user.own(&group);
        Some(Self { group })
    }

    fn command(&self, h: &Harness, user: &User<'_>, arguments: &[&str]) -> Command {
        let script = "echo 0 > \"$1\" && mount -t cgroup2 cgroup2 /sys/fs/cgroup && id=$2 && \
                      shift 2 && exec setpriv --reuid $id --regid $id --clear-groups \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]);
        command.arg(self.group.join("session/cgroup.procs")).arg(user.id.to_string());
        command.arg(user.program()).args(arguments);
        command.env("XDG_RUNTIME_DIR", user.path("run")).env("RUNHCS_E2E", &h.token);
        command
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(self.group.join("session"));
        let _ = std::fs::remove_dir(&self.group);
    }
}

#[test]
fn delegated_control_groups_are_used() {
    Harness::run(Isolation::Process, "delegated_control_groups_are_used", |h| {
        let user = User::new(h);
        let Some(delegated) = Delegated::new(h, &user) else {
            return eprintln!("skipped: this system has no cgroup version 2 hierarchy");
        };
        let bundle = bundle(h, &user, "box", &["sleep", "1000"]);
        let group = |name: &str| delegated.group.join(name);
        let below = group("containers/box");
        let path = Path::new("/")
            .join(below.strip_prefix(delegated.group.ancestors().nth(3).unwrap()).unwrap());
        edit(&bundle, |config| {
            config["linux"]["cgroupsPath"] = json!(path);
            config["linux"]["resources"] = json!({ "devices": [{ "allow": false }] });
        });
        let runhcs = |arguments: &[&str]| h.finish(delegated.command(h, &user, arguments));
        runhcs(&["run", "--detach", "--bundle", text(&bundle), "box"]).ok();
        let pids = std::fs::read_to_string(below.join("cgroup.procs")).unwrap();
        assert_eq!(pids.lines().count(), 1, "{pids}");
        runhcs(&["exec", "--detach", "box", "sleep", "1001"]).ok();
        let pids = std::fs::read_to_string(below.join("cgroup.procs")).unwrap();
        assert_eq!(pids.lines().count(), 2, "{pids}");
        runhcs(&["pause", "box"]).ok();
        let state = runhcs(&["state", "box"]).ok().stdout;
        assert!(state.contains("paused"), "{state}");
        runhcs(&["resume", "box"]).ok();
        runhcs(&["kill", "--all", "box", "KILL"]).ok();
        runhcs(&["delete", "--force", "box"]).ok();
        assert!(!below.exists());
        // A limit whose controller hasn't been delegated.
        let limit = json!({ "unified": { "memory.max": "100000000" } });
        edit(&bundle, |config| config["linux"]["resources"] = limit);
        runhcs(&["run", "--bundle", text(&bundle), "box"]).refused("linux.resources.unified");
        // Outside of what is delegated.
        edit(&bundle, |config| config["linux"]["cgroupsPath"] = json!("/runhcs-e2e/other"));
        runhcs(&["run", "--bundle", text(&bundle), "box"]).refused("may not make control groups");
        let _ = std::fs::remove_dir(group("containers"));
        assert!(left(&user).is_empty(), "{:?}", left(&user));
    });
}

#[test]
fn podman_runs_without_root() {
    Harness::run(Isolation::Process, "podman_runs_without_root", |h| {
        let user = User::new(h);
        let bundle = bundle(h, &user, "box", &["true"]);
        let rootfs = bundle.join("rootfs");
        let config = user.path("home/containers.conf");
        let limits =
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
        std::fs::write(&config, limits).unwrap();
        let program = user.program();
        let podman = |arguments: &[&str]| {
            let mut command = user.command(Path::new("/usr/bin/podman"), &[]);
            command.args(["--cgroup-manager", "cgroupfs", "--storage-driver", "vfs"]);
            command.args(["--events-backend", "file", "--runtime", text(&program)]);
            command.args(arguments).env("CONTAINERS_CONF", &config);
            h.finish(command)
        };
        let run = |before: &[&str], after: &[&str]| {
            podman(&[before, &["--network", "none", "--rootfs", text(&rootfs)], after].concat())
        };
        let hello = run(&["run", "--rm"], &["sh", "-c", "cat /proc/self/uid_map; exit 7"]);
        let words: Vec<&str> = hello.stdout.split_whitespace().collect();
        assert_eq!((hello.code, &words[..2]), (7, &["0", &user.id.to_string()][..]), "{hello:?}");
        run(&["run", "-d", "--name", "box"], &["sleep", "1000"]).ok();
        let exec = podman(&["exec", "box", "sh", "-c", "echo inside; exit 9"]);
        assert_eq!((exec.code, exec.stdout.as_str()), (9, "inside\n"), "{exec:?}");
        let terminal = podman(&["exec", "--tty", "box", "tty"]).ok();
        assert!(terminal.stdout.starts_with("/dev/"), "{terminal:?}");
        podman(&["rm", "--force", "--time", "0", "box"]).ok();
        // The user's own id inside, which is a user namespace within Podman's.
        let own = run(&["run", "--rm", "--userns", "keep-id"], &["id", "-u"]).ok();
        assert_eq!(own.stdout.trim(), user.id.to_string());
        podman(&["system", "reset", "--force"]).ok();
    });
}

#[test]
fn user_namespaces_go_with_namespaces_of_others() {
    Harness::run(Isolation::Process, "user_namespaces_go_with_namespaces_of_others", |h| {
        let mapped = |config: &mut Value| {
            in_user_namespace(config, 700_000_000, 65_536);
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["type"] != "sysfs" && mount["type"] != "cgroup");
            config["process"]["oomScoreAdj"] = json!(5);
        };
        let netns = Netns::new(h, "joined");
        let listed = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(h.path(""), listed).unwrap();
        let first = Bundle::new(h, "first", &["sleep", "1000"]).edit(|config| {
            mapped(config);
            for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
                if namespace["type"] == "network" {
                    namespace["path"] = json!(netns.path());
                }
            }
        });
        h.new_container(&["run", "--detach"], &first, "first").ok();
        let id =
            |pid: &Value, name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        let pid = h.state("first")["pid"].clone();
        let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        assert_eq!(score.trim(), "5");
        let exec = h.runhcs(&["exec", "first", "cat", "/proc/self/uid_map"]).ok();
        let words: Vec<&str> = exec.stdout.split_whitespace().collect();
        assert_eq!(words, ["0", "700000000", "65536"]);
        let kinds = [("user", "user"), ("pid", "pid"), ("network", "net"), ("ipc", "ipc")];
        let second = Bundle::new(h, "second", &["sleep", "1000"]).edit(mapped).join(&pid, &kinds);
        let second = second.edit(|config| {
            config["linux"].as_object_mut().unwrap().remove("uidMappings");
            config["linux"].as_object_mut().unwrap().remove("gidMappings");
        });
        h.new_container(&["run", "--detach"], &second, "second").ok();
        let other = h.state("second")["pid"].clone();
        for name in ["user", "pid", "net", "ipc"] {
            assert_eq!(id(&pid, name), id(&other, name), "{name}");
        }
        assert_ne!(id(&pid, "mnt"), id(&other, "mnt"));
        let ps = h.runhcs(&["exec", "second", "cat", "/proc/1/cmdline"]).ok();
        assert_eq!(ps.stdout, "sleep\x001000\x00");
        for name in ["second", "first"] {
            h.runhcs(&["delete", "--force", name]).ok();
        }
    });
}
