//! Images, and containers that change their image meanwhile, which would have the runtime's mounts,
//! masks and writes end up elsewhere.

use std::os::unix::fs::symlink;
use std::path::Path;

use runhcs_tests::{Bundle, ConsoleSocket, Harness, Isolation, Racer};
use serde_json::{Value, json};

/// How often a race is tried.
const ATTEMPTS: usize = 25;

fn process(name: &str, body: impl FnOnce(&Harness)) {
    Harness::run(Isolation::Process, name, body);
}

fn root(bundle: &Bundle) -> std::path::PathBuf {
    bundle.path().join("rootfs")
}

/// Without the mount at `destination`, so that the image's own directory is there.
fn without_mount(config: &mut Value, destination: &str) {
    config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != destination);
}

/// CVE-2021-30465: a volume in which a mount's place is now a directory, now a link to the host.
#[test]
fn a_renamer_does_not_lead_mounts_out() {
    process("racing mounts", |h| {
        let outside = h.path("outside");
        std::fs::create_dir_all(outside.join("inner")).unwrap();
        std::fs::write(outside.join("inner/secret"), "secret\n").unwrap();
        let (volume, other) = (h.path("volume"), h.path("other"));
        std::fs::create_dir_all(volume.join("place/inner")).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("mark"), "mounted\n").unwrap();
        // As many levels as lead out of any root.
        let up = format!("{}{}", "../".repeat(30), &outside.to_str().unwrap()[1..]);
        symlink(up, volume.join("link")).unwrap();
        let script = "cat /volume/*/inner/secret /volume/*/inner/mark 2>/dev/null; true";
        let bundle = Bundle::new(h, "box", &["sh", "-c", script])
            .bind(&volume, "/volume", &["rbind"])
            .bind(&other, "/volume/place/inner", &["rbind"])
            .bind(&other, "/volume/place/new", &["rbind"]);
        let racer = Racer::exchange(&volume.join("place"), &volume.join("link"));
        let mut made = 0;
        for _ in 0..ATTEMPTS {
            let run = h.new_container(&["run"], &bundle, "box");
            made += usize::from(run.code == 0);
            assert!(run.code == 0 || run.stderr.contains("in the container"), "{run:?}");
            assert!(!run.stdout.contains("secret"), "{run:?}");
        }
        assert!(racer.exchanges() > ATTEMPTS && made > 0, "{racer:?}, {made} containers");
        drop(racer);
        // Neither a mount point nor a mark came to be where the link leads.
        let names = |path: &Path| -> Vec<_> {
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        assert_eq!(names(&outside), ["inner"]);
        assert_eq!(names(&outside.join("inner")), ["secret"]);
    });
}

/// What CVE-2023-27561 and CVE-2025-31133 are about, by a race: a container with the same image
/// puts another directory in the place of `/proc` while paths in it are masked, and moves the real
/// one back afterwards.
#[test]
fn a_renamer_does_not_keep_procfs_unmasked() {
    process("racing masks", |h| {
        // Once it is in procfs, the names no longer matter.
        let script = "until cd /proc && test -e self/stat; do :; done
            test -c timer_list && echo masked
            echo changed 2>/dev/null > sys/kernel/domainname && echo writable
            true";
        let bundle = Bundle::new(h, "box", &["sh", "-c", script]);
        let root = root(&bundle);
        std::fs::create_dir_all(root.join("other/sys/kernel")).unwrap();
        for decoy in ["timer_list", "sys/kernel/domainname"] {
            std::fs::write(root.join("other").join(decoy), "decoy\n").unwrap();
        }
        let racer = Racer::exchange(&root.join("proc"), &root.join("other"));
        let mut made = 0;
        for _ in 0..ATTEMPTS {
            let run = h.new_container(&["run"], &bundle, "box");
            assert!(!run.stdout.contains("writable"), "{run:?}");
            assert!(run.code != 0 || run.stdout.contains("masked"), "{run:?}");
            made += usize::from(run.code == 0);
        }
        assert!(racer.exchanges() > ATTEMPTS && made > 0, "{racer:?}, {made} containers");
    });
}

/// CVE-2019-16884, CVE-2019-19921 and CVE-2025-52881: parts of procfs, to which the runtime or
/// others write, replaced by what the container controls.
#[test]
fn procfs_can_not_be_replaced() {
    process("procfs replaced", |h| {
        let volume = h.path("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(volume.join("file"), "from the volume\n").unwrap();
        let refused = |name: &str, source: &Path, destination: &str| {
            let bundle = Bundle::new(h, name, &["true"]).bind(source, destination, &["rbind"]);
            symlink("/proc/self/attr", root(&bundle).join("attr")).unwrap();
            symlink("/proc", root(&bundle).join("process")).unwrap();
            h.new_container(&["run"], &bundle, name).refused("procfs");
        };
        refused("one", &volume, "/proc/self/attr");
        refused("two", &volume, "/attr");
        refused("three", &volume.join("file"), "/process/sys/kernel/core_pattern");
        refused("four", &volume, "/proc");
        // What only informs may be replaced.
        let bundle = Bundle::new(h, "five", &["cat", "/proc/uptime"]).bind(
            &volume.join("file"),
            "/proc/uptime",
            &["bind"],
        );
        let run = h.new_container(&["run"], &bundle, "five").ok();
        assert_eq!(run.stdout, "from the volume\n");
    });
}

/// A root that has a procfs of its own, as the host's, gets the container's over it.
#[test]
fn a_procfs_of_the_root_is_covered() {
    process("procfs covered", |h| {
        let script = "test -c /proc/timer_list && ls -d /proc/[0-9]* | wc -l";
        let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
            config["root"] = json!({"path": "/", "readonly": true});
        });
        let run = h.new_container(&["run"], &bundle, "box").ok();
        let processes: usize = run.stdout.trim().parse().unwrap();
        assert!(processes < 5, "the host's processes are there: {run:?}");
    });
}

/// CVE-2023-27561: `/proc` and `/sys` under two names, of which one would stay unprotected.
#[test]
fn a_link_in_the_place_of_procfs_is_refused() {
    process("procfs link", |h| {
        for (name, target) in [("proc", "tmp"), ("sys", "/tmp")] {
            let bundle = Bundle::new(h, name, &["true"]);
            let place = root(&bundle).join(name);
            std::fs::remove_dir(&place).unwrap();
            symlink(target, &place).unwrap();
            h.new_container(&["run"], &bundle, name).refused("symbolic link");
        }
    });
}

/// CVE-2025-52881: settings are written to the kernel's own procfs whatever the image has.
#[test]
fn settings_are_not_written_to_the_image() {
    process("settings", |h| {
        let bundle = Bundle::new(h, "box", &["cat", "/proc/sys/net/ipv4/ip_default_ttl"]);
        let name = "proc/sys/net/ipv4/ip_default_ttl";
        let decoy = root(&bundle).join(name);
        std::fs::create_dir_all(decoy.parent().unwrap()).unwrap();
        std::fs::write(&decoy, "decoy\n").unwrap();
        let set = |config: &mut Value| {
            config["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"});
        };
        let bundle = bundle.edit(set);
        assert_eq!(h.new_container(&["run"], &bundle, "box").ok().stdout, "77\n");
        // The image's own in the place of procfs.
        let bundle = bundle.edit(|config| {
            without_mount(config, "/proc");
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        });
        assert_eq!(h.new_container(&["run"], &bundle, "box").ok().stdout, "decoy\n");
        assert_eq!(std::fs::read_to_string(&decoy).unwrap(), "decoy\n");
    });
}

/// A false procfs of the image's does not start a container before its time: init waits at a FIFO
/// that it reaches by one of its descriptors.
#[test]
fn a_false_procfs_does_not_start_the_container() {
    process("false start", |h| {
        let bundle = Bundle::new(h, "box", &["touch", "/started"]).edit(|config| {
            without_mount(config, "/proc");
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        });
        let descriptors = root(&bundle).join("proc/self/fd");
        std::fs::create_dir_all(&descriptors).unwrap();
        for number in 0..64 {
            std::fs::write(descriptors.join(number.to_string()), "").unwrap();
        }
        h.new_container(&["create"], &bundle, "box").ok();
        // Had it not waited, it would have ended at once.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(h.state("box")["status"], "created");
        assert!(!root(&bundle).join("started").exists());
        h.runhcs(&["start", "box"]).ok();
        h.wait_status("box", "stopped");
        assert!(root(&bundle).join("started").exists());
        h.runhcs(&["delete", "box"]).ok();
    });
}

/// CVE-2025-52565: `/dev/console`, over which the terminal is mounted, leads to a file that is to
/// be protected.
#[test]
fn a_link_in_the_place_of_the_console_is_refused() {
    process("console", |h| {
        let terminal = |config: &mut Value| {
            // The image's own /dev, but for the terminals.
            without_mount(config, "/dev");
            without_mount(config, "/dev/shm");
            without_mount(config, "/dev/mqueue");
            config["process"]["terminal"] = json!(true);
        };
        let bundle = Bundle::new(h, "box", &["true"]).edit(terminal);
        symlink("/proc/sysrq-trigger", root(&bundle).join("dev/console")).unwrap();
        let socket = ConsoleSocket::new(&h.path("one.sock"));
        let create = ["create", "--console-socket", socket.path()];
        h.new_container(&create, &bundle, "box").refused("symbolic link");
        // A link to another multiplexer gets nobody another terminal, either.
        let bundle = Bundle::new(h, "other", &["true"]).edit(terminal).edit(|config| {
            without_mount(config, "/dev/pts");
        });
        std::fs::create_dir(root(&bundle).join("dev/pts")).unwrap();
        symlink("/dev/zero", root(&bundle).join("dev/pts/ptmx")).unwrap();
        let create = ["create", "--console-socket", socket.path()];
        h.new_container(&create, &bundle, "other").refused("multiplexer");
    });
}

/// `--no-pivot` leaves the old root in the container's mount namespace, below the new one. The
/// kernel lets a new user namespace mount whatever whole procfs or sysfs it finds anywhere in it.
#[test]
fn a_new_user_namespace_gets_no_unmasked_procfs() {
    process("bare procfs", |h| {
        let script = "unshare -Urmpf mount -t proc proc /proc; echo $?
            unshare -Urn true && echo unshared";
        // Root couldn't be root in it without CAP_SETFCAP (user_namespaces(7)).
        let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
            config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        });
        for options in [&["run", "--no-pivot"][..], &["run"]] {
            let run = h.new_container(options, &bundle, "box").ok();
            assert!(run.stderr.contains("ermi"), "{run:?}");
            assert_eq!(run.stdout, "1\nunshared\n", "{run:?}");
        }
        // Nothing of the host's went with it.
        assert!(Path::new("/proc/self/stat").exists() && Path::new("/sys/kernel").exists());
    });
}
