//! Volumes: what containers of a pod can do with each other by way of files they share, volumes of
//! containers that join later, and what can't be had.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use runhcs_tests::{Bundle, Harness, Isolation, eventually, in_both};
use serde_json::json;

/// A pod of two containers that bring the same volume, and a process that was started in it.
struct Pair<'a> {
    h: &'a Harness,
}

impl<'a> Pair<'a> {
    fn new(h: &'a Harness, volume: &Path) -> Self {
        let member = |name: &str, kind: &str| {
            let bundle = Bundle::new(h, name, &["sleep", "1000"]).with_program("file-probe");
            // Each at a path of its own, as a pod's containers have it.
            bundle.in_pod(kind, "one").bind(volume, &format!("/{name}"), &["rbind", "rprivate"])
        };
        let (one, two) = (member("one", "sandbox"), member("two", "container"));
        h.new_container(&["run", "--detach"], &one, "one").ok();
        let path = two.path().to_str().unwrap();
        h.runhcs(&["run", "--detach", "--bundle", path, "two"]).ok();
        Self { h }
    }

    /// Starts the probe in the first container and waits until it says a word.
    fn start(&self, arguments: &[&str], word: &str) -> (Child, (PathBuf, PathBuf)) {
        let command = [&["exec", "one", "file-probe"][..], arguments].concat();
        let (child, files) = self.h.spawn(self.h.command(&command));
        let said = || std::fs::read_to_string(&files.0).unwrap_or_default();
        let errors = || std::fs::read_to_string(&files.1).unwrap_or_default();
        eventually(|| said().contains(word), || said() + &errors());
        (child, files)
    }

    fn second(&self, arguments: &[&str]) -> String {
        self.h.runhcs(&[&["exec", "two"][..], arguments].concat()).ok().stdout
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        for id in ["two", "one"] {
            self.h.runhcs(&["delete", "--force", id]);
        }
    }
}

fn directory(h: &Harness, name: &str) -> PathBuf {
    let path = h.path(name);
    std::fs::create_dir(&path).unwrap();
    path
}

in_both!(a_pods_containers_meet_in_a_volume, |h: &Harness| {
    let volume = directory(h, "volume");
    let pair = Pair::new(h, &volume);

    // Locks of one are seen by the other.
    assert_eq!(pair.second(&["file-probe", "try-lock", "/two/lock"]), "free free\n");
    let (mut holder, _) = pair.start(&["lock", "/one/lock"], "locked");
    assert_eq!(pair.second(&["file-probe", "try-lock", "/two/lock"]), "held held\n");
    holder.kill().unwrap();
    holder.wait().unwrap();

    // A socket and a pipe have both ends in the pod.
    let (listener, files) = pair.start(&["listen", "/one/socket"], "listening");
    assert_eq!(pair.second(&["file-probe", "connect", "/two/socket"]), "heard hello\n");
    assert_eq!(runhcs_tests::wait(listener, files).code, 0);
    pair.second(&["mkfifo", "/two/fifo"]);
    let (reader, files) = h.spawn(h.command(&["exec", "one", "cat", "/one/fifo"]));
    pair.second(&["sh", "-c", "echo through the pipe > /two/fifo"]);
    assert_eq!(runhcs_tests::wait(reader, files).stdout, "through the pipe\n");

    // What one makes, the other is told of.
    let (watcher, files) = pair.start(&["watch", "/one"], "watching");
    pair.second(&["touch", "/two/new-file"]);
    assert_eq!(runhcs_tests::wait(watcher, files).stdout, "watching\nnew-file\n");

    // Memory that is shared by a file is the same memory.
    let count = h.command(&["exec", "one", "file-probe", "count", "/one/counter"]);
    let (first, files) = h.spawn(count);
    pair.second(&["file-probe", "count", "/two/counter"]);
    assert_eq!(runhcs_tests::wait(first, files).code, 0);
    let counted = std::fs::read(volume.join("counter")).unwrap();
    assert_eq!(u64::from_ne_bytes(counted[..8].try_into().unwrap()), 40_000);
});

// As docs/files.md says: watches tell of what is done in the same VM, and the host does things
// behind their back. What it did is seen by who looks.
in_both!(watches_tell_of_what_is_done_on_the_same_kernel, |h: &Harness| {
    let volume = directory(h, "volume");
    let pair = Pair::new(h, &volume);
    let (watcher, files) = pair.start(&["watch", "/one"], "watching");
    std::fs::write(volume.join("by-the-host"), "made outside\n").unwrap();
    assert_eq!(pair.second(&["cat", "/two/by-the-host"]), "made outside\n");
    pair.second(&["touch", "/two/by-a-container"]);
    let first = match h.isolation {
        Isolation::Process => "by-the-host",
        Isolation::Vm => "by-a-container",
    };
    let told = runhcs_tests::wait(watcher, files).stdout;
    assert_eq!(told, format!("watching\n{first}\n"));
});

in_both!(a_later_containers_volumes_come_with_it, |h: &Harness| {
    let sandbox = Bundle::new(h, "pod", &["sleep", "1000"]).in_pod("sandbox", "pod");
    h.new_container(&["run", "--detach"], &sandbox, "pod").ok();
    let volume = directory(h, "volume");
    let file = h.path("file");
    std::fs::write(&file, "a file\n").unwrap();
    std::fs::write(volume.join("greeting"), "from a volume\n").unwrap();
    for round in 0..2 {
        let script = "cat /v/greeting /f; test ! -w /f || ! echo x 2>/dev/null >> /f
            touch /v/$0; mount | grep -c ' /scratch '; dd if=/dev/zero of=/scratch/x bs=64k count=3";
        let name = format!("later{round}");
        let later = Bundle::new(h, &name, &["sh", "-c", script, &name]).in_pod("container", "pod");
        let later = later.bind(&volume, "/v", &["rbind"]).bind(&file, "/f", &["bind", "ro"]);
        let later = later.edit(|config| {
            config["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/scratch", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "nodev", "mode=1777", "size=128k"]
            }));
        });
        let path = later.path().to_str().unwrap();
        let run = h.runhcs(&["run", "--bundle", path, &name]);
        // 128 KiB fit, 192 don't.
        assert_eq!((run.code, run.stdout.as_str()), (1, "from a volume\na file\n1\n"), "{run:?}");
        assert!(run.stderr.contains("No space left"), "{run:?}");
        assert!(volume.join(&name).exists());
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a file\n");
    h.runhcs(&["delete", "--force", "pod"]).ok();
});

in_both!(the_size_of_shared_memory_is_the_configurations, |h: &Harness| {
    let script = "stat -f -c '%b %S' /dev/shm; grep ' /dev/shm ' /proc/mounts | cut -d' ' -f3";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev/shm");
        mounts.push(json!({
            "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=12345k"]
        }));
    });
    let run = h.new_container(&["run"], &bundle, "box").ok();
    // In pages of 4 KiB, rounded up.
    assert_eq!(run.stdout, "3087 4096\ntmpfs\n");
});

/// A mount of the test's own, shared with whoever has a copy of it.
struct SharedMount(PathBuf);

impl SharedMount {
    fn new(path: PathBuf) -> Self {
        run("mount", &["-t", "tmpfs", "runhcs-e2e"], &path);
        run("mount", &["--make-shared"], &path);
        Self(path)
    }
}

impl Drop for SharedMount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--recursive").arg(&self.0).status();
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) {
    assert!(Command::new(program).args(arguments).arg(path).status().unwrap().success());
}

in_both!(a_volume_can_follow_what_the_host_mounts, |h: &Harness| {
    let volume = SharedMount::new(directory(h, "volume"));
    let below = volume.0.join("below");
    std::fs::create_dir(&below).unwrap();
    let bundle = Bundle::new(h, "box", &["sleep", "1000"])
        .bind(&volume.0, "/follows", &["rbind", "rslave"])
        .bind(&volume.0, "/stays", &["rbind", "rprivate"]);
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    run("mount", &["-t", "tmpfs", "runhcs-e2e"], &below);
    std::fs::write(below.join("late"), "mounted later\n").unwrap();
    let read = |path: &str| h.runhcs(&["exec", "box", "cat", path]).stdout;
    eventually(
        || read("/follows/below/late") == "mounted later\n",
        || format!("{:?}", h.runhcs(&["exec", "box", "ls", "-la", "/follows/below"])),
    );
    assert_eq!(read("/stays/below/late"), "");
    h.runhcs(&["delete", "--force", "box"]).ok();
});

#[test]
fn what_has_another_end_on_the_host_is_refused() {
    Harness::run(Isolation::Vm, "endpoints", |h| {
        let socket = h.path("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let fifo = h.path("fifo");
        run("mkfifo", &[], &fifo);
        let create = |source: &Path, options: &[&str]| {
            let bundle = Bundle::new(h, "box", &["true"]).bind(source, "/x", options);
            let outcome = h.new_container(&["create"], &bundle, "box");
            std::fs::remove_dir_all(bundle.path()).unwrap();
            outcome
        };
        create(&socket, &["bind"]).refused("is a socket of this host");
        create(&fifo, &["bind"]).refused("is a pipe of this host");
        create(Path::new("/dev/null"), &["bind"]).refused("name it in linux.devices");
        create(&h.path("tmp"), &["rbind", "rshared"]).refused("`rshared`");
    });
}
