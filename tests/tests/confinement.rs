//! What the processes of a utility VM may do on this host, as the kernel shows it.

use std::collections::HashMap;
use std::path::PathBuf;

use runhcs_tests::{Bundle, Harness, Isolation};
use serde_json::json;

/// A process of this test's own VM.
struct Process(PathBuf);

impl Process {
    /// The one whose command line holds `text`.
    fn find(h: &Harness, text: &str) -> Self {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let process = Self(entry.path());
            let command = process.read("cmdline").replace('\0', " ");
            let ours = command.contains(&h.token) || process.read("environ").contains(&h.token);
            if ours && command.contains(text) {
                found.push(process);
            }
        }
        assert_eq!(found.len(), 1, "{text}");
        found.remove(0)
    }

    fn read(&self, file: &str) -> String {
        let bytes = std::fs::read(self.0.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A line of its status (proc_pid_status(5)).
    fn status(&self, name: &str) -> String {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    }

    fn capabilities(&self, set: &str) -> u64 {
        u64::from_str_radix(&self.status(set), 16).unwrap()
    }

    fn namespaces(&self) -> HashMap<String, PathBuf> {
        let entries = std::fs::read_dir(self.0.join("ns")).unwrap().flatten();
        let read = |entry: std::fs::DirEntry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read_link(entry.path()).unwrap())
        };
        entries.map(read).collect()
    }

    /// What its descriptors are, without numbers.
    fn descriptors(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.join("fd")).unwrap().flatten();
        let name = |entry: std::fs::DirEntry| {
            let link = std::fs::read_link(entry.path()).unwrap();
            link.to_string_lossy().split(":[").next().unwrap().to_owned()
        };
        entries.map(name).collect()
    }

    /// Where things are mounted for it, and what.
    fn mounts(&self) -> Vec<(String, String)> {
        let table = self.read("mountinfo");
        let parse = |line: &str| {
            let (before, after) = line.split_once(" - ").unwrap();
            let source = after.split(' ').nth(1).unwrap().to_owned();
            (before.split(' ').nth(4).unwrap().to_owned(), source)
        };
        table.lines().map(parse).collect()
    }
}

const OWN_NAMESPACES: [&str; 6] = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];

#[test]
fn a_vms_processes_have_what_they_need_and_no_more() {
    Harness::run(Isolation::Vm, "confinement", |h| {
        let id = h.token.as_str();
        let given = h.path("given");
        std::fs::create_dir(&given).unwrap();
        let bundle = Bundle::new(h, "box", &["sleep", "1000"]).bind(&given, "/given", &["rbind"]);
        let limit: u64 = 300 << 20;
        let bundle = bundle.edit(|config| {
            config["linux"]["resources"] = json!({
                "memory": { "limit": limit },
                "cpu": { "quota": 150_000, "period": 100_000 },
                "pids": { "limit": 50 },
            });
        });
        h.new_container(&["run", "--detach"], &bundle, id).ok();
        let (qemu, daemon, shim) = (
            Process::find(h, "guest="),
            Process::find(h, "virtiofs --listen"),
            Process::find(h, "vm-shim serve"),
        );
        let host = Process("/proc/self".into()).namespaces();

        // QEMU is nobody.
        let base = 1_879_048_192;
        let pid: u32 = shim.0.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let user = (base + pid).to_string();
        for ids in [qemu.status("Uid"), qemu.status("Gid")] {
            assert!(ids.split_whitespace().all(|id| id == user), "{ids} is not {user}");
        }
        assert_eq!(qemu.status("Groups"), "");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(qemu.capabilities(set), 0, "{set}");
        }
        assert_eq!((qemu.status("NoNewPrivs"), qemu.status("Seccomp")), ("1".into(), "2".into()));
        // It sees no file: what it was started with is gone.
        assert_eq!(qemu.mounts(), [("/".to_owned(), "runhcs-qemu".to_owned())]);
        let visible = std::fs::read_dir(qemu.0.join("root/usr")).unwrap().count();
        assert_eq!(visible, 0, "QEMU sees /usr");
        for entry in std::fs::read_dir(qemu.0.join("root")).unwrap().flatten() {
            let metadata = entry.path().symlink_metadata().unwrap();
            let empty = metadata.is_symlink()
                || metadata.is_file() && metadata.len() == 0
                || metadata.is_dir();
            assert!(empty, "{}", entry.path().display());
        }
        let allowed = ["socket", "pipe", "anon_inode", "/memfd:memory-backend-memfd (deleted)"];
        for descriptor in qemu.descriptors() {
            let named = ["/null", "/dev/null", "/tun", "/dev/net/tun"]
                .contains(&descriptor.as_str())
                || descriptor.ends_with("/vm/life");
            let expected = named || allowed.iter().any(|name| descriptor.starts_with(name));
            assert!(expected, "QEMU has {descriptor}");
        }

        // The file server may do with the pod's files what root may, and sees no others.
        let files = 0x8800_00db;
        assert_eq!(daemon.capabilities("CapEff") & !files, 0);
        assert_eq!(daemon.capabilities("CapBnd") & !files, 0);
        assert_eq!(
            (daemon.status("NoNewPrivs"), daemon.status("Seccomp")),
            ("1".into(), "2".into())
        );
        let mut points: Vec<String> = daemon.mounts().into_iter().map(|(point, _)| point).collect();
        points.sort();
        // The root file system, and the one volume.
        assert_eq!(points, ["/", "/1", "/2"]);

        for process in [&qemu, &daemon] {
            let own = process.namespaces();
            for kind in OWN_NAMESPACES {
                assert_ne!(own[kind], host[kind], "{kind}");
            }
            // Nor can it see other processes, being the first of its pid namespace.
            assert!(process.status("NSpid").ends_with("\t1"), "{}", process.status("NSpid"));
        }

        // The shim keeps what it takes to mount, to carry the network and to end QEMU.
        let (admin, network, kill) = (1 << 21, 1 << 12, 1 << 5);
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(shim.capabilities(set), admin | network | kill, "{set}");
        }
        assert_eq!(shim.status("NoNewPrivs"), "1");
        for task in std::fs::read_dir(shim.0.join("task")).unwrap().flatten() {
            let thread = Process(task.path());
            let more = thread.capabilities("CapEff") & !(admin | network | kill);
            assert_eq!(more, 0, "{:?}", thread.0);
        }
        let seen: Vec<String> = shim.mounts().into_iter().map(|(_, source)| source).collect();
        assert!(seen.contains(&"runhcs-share".to_owned()), "{seen:?}");
        assert!(!std::path::Path::new(&shim.0.join("root/etc")).exists());

        the_groups_hold(h, [&qemu, &daemon, &shim], limit);
        // And with all that it works.
        let script = "echo hello > /given/file; uname -r";
        h.runhcs(&["exec", id, "sh", "-c", script]).ok();
        assert_eq!(std::fs::read_to_string(given.join("file")).unwrap(), "hello\n");
        h.runhcs(&["delete", "--force", id]).ok();
    });
}

/// The container's own control groups hold the whole VM, with room for what it needs beside the
/// container.
fn the_groups_hold(h: &Harness, processes: [&Process; 3], limit: u64) {
    let path = format!("/runhcs-e2e/{}/box", h.token);
    let mut hierarchies = 0;
    for process in processes {
        for line in process.read("cgroup").lines() {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, group) = (fields.next(), fields.next().unwrap(), fields.next());
            // Others may have hierarchies that are mounted elsewhere, and beside version 1, version
            // 2 has no controllers.
            let place = PathBuf::from("/sys/fs/cgroup")
                .join(controllers.trim_start_matches("name="))
                .join("cgroup.procs");
            if place.exists() {
                assert_eq!(group, Some(path.as_str()), "{line}");
                hierarchies += 1;
            }
        }
    }
    assert!(hierarchies > 0, "there are no control groups");
    let (guests, overhead) = (128 << 20, 256 << 20);
    let first = |files: [String; 2]| {
        let text = files.iter().find_map(|file| std::fs::read_to_string(file).ok());
        text.unwrap().trim().to_owned()
    };
    let root = "/sys/fs/cgroup";
    let memory = first([
        format!("{root}/memory{path}/memory.limit_in_bytes"),
        format!("{root}{path}/memory.max"),
    ]);
    assert_eq!(memory, (limit + guests + overhead).to_string());
    let quota =
        first([format!("{root}/cpu{path}/cpu.cfs_quota_us"), format!("{root}{path}/cpu.max")]);
    assert!(quota.starts_with("150000"), "{quota}");
    let pids = first([format!("{root}/pids{path}/pids.max"), format!("{root}{path}/pids.max")]);
    // The container's processes are the guest's to count.
    assert_eq!(pids, "max");
}

#[test]
fn what_qemus_user_cannot_read_is_refused_with_a_remedy() {
    Harness::run(Isolation::Vm, "unreadable kernel", |h| {
        let image = h.path("image");
        std::fs::create_dir(&image).unwrap();
        for file in ["vmlinux", "initramfs.img"] {
            let from = runhcs_tests::target().join("guest-image").join(file);
            std::fs::copy(from, image.join(file)).unwrap();
        }
        let kernel = image.join("vmlinux");
        let mode = std::os::unix::fs::PermissionsExt::from_mode;
        std::fs::set_permissions(&kernel, mode(0o600)).unwrap();
        h.write_config_for(&image, "");
        let bundle = Bundle::new(h, "box", &["true"]);
        h.new_container(&["create"], &bundle, "box").refused("chmod a+r");
        // Where the files lie doesn't matter.
        std::fs::set_permissions(&kernel, mode(0o644)).unwrap();
        std::fs::set_permissions(&image, mode(0o700)).unwrap();
        h.new_container(&["run"], &bundle, "box").ok();
    });
}
