//! Bundles with a real root file system.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::{Harness, binary};

const APPLETS: [&str; 42] = [
    "sh",
    "cat",
    "echo",
    "sleep",
    "id",
    "hostname",
    "uname",
    "ls",
    "wc",
    "sha256sum",
    "mount",
    "touch",
    "test",
    "true",
    "false",
    "head",
    "tail",
    "stty",
    "tty",
    "httpd",
    "wget",
    "readlink",
    "kill",
    "grep",
    "ulimit",
    "stat",
    "ln",
    "mv",
    "rm",
    "mkdir",
    "rmdir",
    "chmod",
    "chown",
    "mkfifo",
    "dd",
    "truncate",
    "ip",
    "ping",
    "tr",
    "cut",
    "ionice",
    "env",
];

/// All capabilities that setting up containers takes, and more.
const CAPABILITIES: &str = "CAP_AUDIT_WRITE CAP_BPF CAP_CHECKPOINT_RESTORE CAP_CHOWN \
    CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_IPC_OWNER CAP_KILL CAP_MKNOD \
    CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_PERFMON CAP_SETFCAP CAP_SETGID CAP_SETPCAP \
    CAP_SETUID CAP_SYS_ADMIN CAP_SYS_CHROOT CAP_SYS_NICE CAP_SYS_PTRACE CAP_SYS_RESOURCE \
    CAP_SYS_TIME";

/// A bundle in the test's own directory.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    config: Value,
}

impl Bundle {
    /// A bundle that runs a program in a busybox root.
    pub fn new(harness: &Harness, name: &str, program: &[&str]) -> Self {
        let path = harness.path(name);
        for directory in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
            std::fs::create_dir_all(path.join("rootfs").join(directory)).unwrap();
        }
        // As in any image, and so in a tmpfs that covers it.
        let everyones = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(path.join("rootfs/tmp"), everyones).unwrap();
        let busybox = path.join("rootfs/bin/busybox");
        // A copy made by a child: no descriptor of ours is open for writing when a test that runs
        // at the same time forks, which would keep the program from being executed.
        let copied = Command::new("cp").arg("/bin/busybox").arg(&busybox).status();
        assert!(copied.unwrap().success(), "busybox-static is installed by `make test`");
        for applet in APPLETS {
            let link = path.join("rootfs/bin").join(applet);
            std::os::unix::fs::symlink("busybox", link).unwrap();
        }
        Self::with_root(harness, path, program)
    }

    /// A bundle with a root that exists at `path`/rootfs.
    pub fn with_root(harness: &Harness, path: PathBuf, program: &[&str]) -> Self {
        let _ = std::fs::remove_file(path.join("config.json"));
        let spec = Command::new(binary("runhcs")).arg("spec").arg("--bundle").arg(&path).status();
        assert!(spec.unwrap().success());
        let text = std::fs::read_to_string(path.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["process"]["args"] = json!(program);
        config["process"]["terminal"] = json!(false);
        config["root"]["readonly"] = json!(false);
        config["linux"]["cgroupsPath"] =
            json!(format!("/runhcs-e2e/{}/{}", harness.token, name(&path)));
        let bundle = Self { path, config };
        bundle.save();
        bundle
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes its configuration.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self.save();
        self
    }

    /// Adds a program of the build with the libraries that it needs, as `/bin/<name>`.
    pub fn with_program(self, name: &str) -> Self {
        let program = binary(name);
        self.with_copy(&program, &Path::new("/bin").join(name))
    }

    /// Adds a program of this host, with the libraries that it needs, as `place`.
    pub fn with_copy(self, program: &Path, place: &Path) -> Self {
        let listed = Command::new("ldd").arg(program).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let copy = |from: &Path, to: &Path| {
            let to = self.path.join("rootfs").join(to.strip_prefix("/").unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            let copied = Command::new("cp").arg("-L").arg(from).arg(&to).status();
            assert!(copied.unwrap().success(), "copy {}", from.display());
        };
        copy(program, place);
        for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
            copy(Path::new(library), Path::new(library));
        }
        self
    }

    /// Gives it what a machine with containers of its own takes: capabilities, control groups that
    /// it may change and that begin at the root, and the whole of `/proc`.
    pub fn privileged(self) -> Self {
        self.edit(|config| {
            let names: Vec<&str> = CAPABILITIES.split_whitespace().collect();
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(names);
            }
            config["process"]["noNewPrivileges"] = json!(false);
            for field in ["maskedPaths", "readonlyPaths"] {
                config["linux"][field] = json!([]);
            }
            // On version 2 it is so by default.
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            if !namespaces.iter().any(|namespace| namespace["type"] == "cgroup") {
                namespaces.push(json!({ "type": "cgroup" }));
            }
            let mounts = config["mounts"].as_array_mut().unwrap();
            for mount in mounts.iter_mut().filter(|mount| mount["type"] == "cgroup") {
                mount["options"].as_array_mut().unwrap().retain(|option| option != "ro");
            }
            mounts.push(json!({ "destination": "/run", "type": "tmpfs", "source": "run" }));
        })
    }

    /// Adds a bind mount.
    pub fn bind(self, source: &Path, destination: &str, options: &[&str]) -> Self {
        self.edit(|config| {
            config["mounts"].as_array_mut().unwrap().push(json!({
                "source": source, "destination": destination, "type": "bind", "options": options
            }));
        })
    }

    /// Makes it a pod's sandbox, or a container of the pod.
    pub fn in_pod(self, kind: &str, sandbox: &str) -> Self {
        self.edit(|config| {
            config["annotations"] = json!({
                "io.kubernetes.cri.container-type": kind,
                "io.kubernetes.cri.sandbox-id": sandbox
            });
        })
    }

    /// Joins another container's namespaces by the path that CRI runtimes give.
    pub fn join(self, pid: &Value, kinds: &[(&str, &str)]) -> Self {
        self.edit(|config| {
            for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
                let kind = namespace["type"].as_str().unwrap().to_owned();
                if let Some((_, file)) = kinds.iter().find(|(name, _)| *name == kind) {
                    namespace["path"] = json!(format!("/proc/{pid}/ns/{file}"));
                }
            }
        })
    }

    fn save(&self) {
        let text = serde_json::to_string_pretty(&self.config).unwrap();
        std::fs::write(self.path.join("config.json"), text).unwrap();
    }
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}
