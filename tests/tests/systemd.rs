//! Control groups that systemd makes. systemd itself is the first process of a container here, on
//! control groups of version 1 if this host has those, and of version 2 in a VM.

use std::path::Path;
use std::process::Command;

use runhcs_tests::{Bundle, Harness, Isolation, Outcome, eventually, in_both};
use serde_json::{Value, json};

/// systemd's own programs (Debian's package `systemd`).
const SYSTEMD: &str = "/lib/systemd/systemd";
const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// A user of the machine, who has a systemd, too, and what that runs first.
const UNITS: [(&str, &str); 5] = [
    (
        "system/default.target",
        "[Unit]\nDescription=Test\nDefaultDependencies=no\nWants=idle.service\n",
    ),
    // With a service there, control groups are divided from the beginning.
    (
        "system/idle.service",
        "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sh -c '>/up; exec sleep 9999'\n",
    ),
    (
        "system/user.service",
        "[Unit]\nDefaultDependencies=no\n[Service]\nType=notify\nUser=1000\n\
         Environment=XDG_RUNTIME_DIR=/run/user HOME=/run/user PATH=/bin\n\
         ExecStart=/lib/systemd/systemd --user\nDelegate=yes\n",
    ),
    ("user/default.target", "[Unit]\nDescription=Test\nDefaultDependencies=no\n"),
    (
        "user/job.service",
        "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\n\
         ExecStart=/bin/sh /job.sh\nStandardOutput=file:/run/user/said\n\
         StandardError=inherit\n",
    ),
];

/// A machine of the test's own, with systemd and the runtime in it.
struct Machine<'h> {
    harness: &'h Harness,
}

impl<'h> Machine<'h> {
    /// Boots it.
    fn boot(harness: &'h Harness) -> Self {
        Self::boot_with(harness, |bundle| bundle)
    }

    /// Boots it with more than usual in it.
    fn boot_with(harness: &'h Harness, more: impl FnOnce(Bundle) -> Bundle) -> Self {
        let bundle = Bundle::new(harness, "machine", &[SYSTEMD])
            .with_copy(Path::new(SYSTEMD), Path::new(SYSTEMD))
            .with_copy(Path::new(SYSTEMCTL), Path::new("/bin/systemctl"))
            .with_program("runhcs")
            .privileged()
            .edit(|config| {
                // By this systemd knows that it is in a container (its "Container Interface").
                let env = config["process"]["env"].as_array_mut().unwrap();
                env.push(json!("container=runhcs"));
            });
        let bundle = more(bundle);
        let root = bundle.path().join("rootfs");
        for (name, text) in UNITS {
            let path = root.join("etc/systemd").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:\nuser:x:1000:1000::/:\n").unwrap();
        std::fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
        // What the inner runtime runs.
        let inner = Bundle::new(harness, "inner", &["sleep", "1000"]);
        let copied =
            Command::new("cp").arg("-a").args([inner.path(), &root.join("inner")]).status();
        assert!(copied.unwrap().success());
        harness.new_container(&["run", "--detach"], &bundle, "machine").ok();
        let machine = Self { harness };
        // Not asked of the machine: a process of ours that is there before groups are divided
        // keeps systemd from dividing them.
        eventually(|| root.join("up").exists(), || format!("{:?}", harness.state("machine")));
        let answers = || machine.sh("test -S /run/systemd/private").code == 0;
        eventually(answers, || format!("{:?}", harness.state("machine")));
        machine
    }

    /// Runs a shell's command in it.
    fn sh(&self, script: &str) -> Outcome {
        self.harness.runhcs(&["exec", "machine", "sh", "-c", script])
    }

    /// Runs the inner runtime.
    fn runhcs(&self, arguments: &str) -> Outcome {
        self.sh(&format!("runhcs --root /run/inner --systemd-cgroup {arguments}"))
    }

    /// Changes the inner bundle's configuration, from within: the machine may know the file.
    fn configure(&self, change: impl FnOnce(&mut Value)) {
        let text = self.sh("cat /inner/config.json").ok().stdout;
        let mut config: Value = serde_json::from_str(&text).unwrap();
        change(&mut config);
        let text = config.to_string();
        assert!(!text.contains('\''), "it is quoted for a shell");
        self.sh(&format!("echo '{text}' >/inner/config.json")).ok();
    }

    /// Gives the inner container a group in a slice, with limits and a property of its unit. `quota`
    /// is what it may use of its 100 ms of processor time, in µs.
    fn limit_in_slice(&self, quota: i64) {
        self.configure(|config| {
            config["linux"]["cgroupsPath"] = json!("test.slice:box:one");
            config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
            config["linux"]["resources"]["pids"] = json!({ "limit": 50 });
            config["linux"]["resources"]["cpu"] = json!({ "quota": quota, "period": 100_000 });
            config["annotations"] = json!({ "org.systemd.property.TimeoutStopSec": "5" });
        });
    }

    /// A property of the inner container's unit, as systemd tells it.
    fn property(&self, name: &str) -> String {
        self.properties(&[name]).remove(0)
    }

    /// Several of them.
    fn properties(&self, names: &[&str]) -> Vec<String> {
        let list = names.join(",");
        let shown = self.sh(&format!("systemctl show -p {list} box-one.scope")).ok().stdout;
        let value = |name: &&str| {
            let mut lines = shown.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_else(|| panic!("no {name} in {shown}")).to_owned()
        };
        names.iter().map(value).collect()
    }

    /// Panics unless each has its value.
    fn has(&self, expected: &[(&str, &str)]) {
        let names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
        let found = self.properties(&names);
        let found: Vec<_> = names.into_iter().zip(found.iter().map(String::as_str)).collect();
        assert_eq!(found, expected);
    }

    fn limit(&self, version_1: &str, version_2: &str) -> String {
        let scope = "test.slice/box-one.scope";
        let (controller, _) = version_1.split_once('.').unwrap();
        let script = format!(
            "cat /sys/fs/cgroup/{controller}/{scope}/{version_1} \
             /sys/fs/cgroup/{scope}/{version_2} 2>/dev/null || true"
        );
        self.sh(&script).ok().stdout.trim().to_owned()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.sh("cat /run/user/said; systemctl --no-pager status user.service; \
                               cat /proc/self/mountinfo /proc/self/cgroup; busybox ps");
            eprintln!("the machine: {log:?}");
        }
        self.harness.runhcs(&["delete", "--force", "machine"]);
        runhcs_tests::cgroups::end_unmounted(self.harness);
    }
}

in_both!(systemd_makes_control_groups, |h| {
    let machine = Machine::boot(h);
    machine.limit_in_slice(50_000);
    machine.runhcs("run --detach --bundle /inner box").ok();
    machine.has(&[
        ("Slice", "test.slice"),
        ("ActiveState", "active"),
        ("Delegate", "yes"),
        ("ControlGroup", "/test.slice/box-one.scope"),
        ("TasksMax", "50"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("TimeoutStopUSec", "5s"),
        ("DevicePolicy", "strict"),
    ]);
    let memory = machine.properties(&["MemoryMax", "MemoryLimit"]);
    assert!(memory.contains(&"67108864".to_owned()), "{memory:?}");
    assert_eq!(machine.limit("memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(machine.limit("pids.max", "pids.max"), "50");
    let null = "echo x >/dev/null && test -c /dev/zero && echo fine";
    let said = machine.runhcs(&format!("exec box sh -c '{null}'")).ok().stdout;
    assert_eq!(said, "fine\n");

    // A later limit is systemd's, too: looking after its units it keeps it.
    machine.runhcs("update --pids-limit 60 --cpu-quota 20000 box").ok();
    assert_eq!(machine.property("TasksMax"), "60");
    assert_eq!(machine.property("CPUQuotaPerSecUSec"), "200ms");
    machine.sh("systemctl daemon-reload").ok();
    assert_eq!(machine.limit("pids.max", "pids.max"), "60");
    machine.runhcs("pause box").ok();
    machine.runhcs("resume box").ok();
    let processes = machine.runhcs("ps --format json box").ok().stdout;
    let processes: Vec<u32> = serde_json::from_str(&processes).unwrap();
    assert_eq!(processes.len(), 1, "{processes:?}");

    machine.runhcs("delete --force box").ok();
    assert_eq!(machine.property("ActiveState"), "inactive");
    assert_eq!(machine.limit("pids.max", "pids.max"), "");

    // A creation that is cut off after systemd has begun leaves what `delete` finds.
    machine.configure(|config| {
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"] });
        config["hooks"] = json!({ "createRuntime": [hook] });
    });
    let cut_off = machine.runhcs("create --bundle /inner box");
    assert_ne!(cut_off.code, 0, "{cut_off:?}");
    machine.runhcs("delete --force box").ok();
    assert_eq!(machine.property("ActiveState"), "inactive");
    machine.configure(|config| config["hooks"] = json!({}));
    machine.runhcs("run --detach --bundle /inner box").ok();
    assert_eq!(machine.property("ActiveState"), "active");
    machine.runhcs("delete --force box").ok();

    machine.configure(|config| config["linux"]["cgroupsPath"] = json!("/a/b"));
    let refused = machine.runhcs("create --bundle /inner box").refused("linux.cgroupsPath");
    assert!(refused.stderr.contains("slice:prefix:name"), "{refused:?}");
    h.runhcs(&["delete", "--force", "machine"]).ok();
});

/// What VMs take: QEMU with its files, the VM shim, the guest image, and the device for taps.
fn with_vms(bundle: Bundle) -> Bundle {
    let qemu = Path::new("/usr/bin/qemu-system-x86_64");
    let image = runhcs_tests::target().join("guest-image");
    let bundle = bundle.with_copy(qemu, qemu).with_program("runhcs-vm-shim");
    let config = "vm-shim = '/bin/runhcs-vm-shim'\n[vm]\nkernel = '/image/vmlinux'\n\
        initramfs = '/image/initramfs.img'\naccelerator = 'tcg'\ntemplate = 'never'\n\
        boot-timeout-seconds = 600\n";
    std::fs::write(bundle.path().join("rootfs/vm.toml"), config).unwrap();
    let bundle = bundle.bind(&image, "/image", &["rbind", "ro"]);
    let files = ["/usr/share/qemu", "/usr/share/seabios", "/usr/lib/x86_64-linux-gnu/qemu"];
    let bundle = files
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .fold(bundle, |bundle: Bundle, path| bundle.bind(Path::new(path), path, &["rbind", "ro"]));
    bundle.edit(|config| {
        // Files that a guest knows are descriptors of the virtiofs daemon's.
        config["process"]["rlimits"] = json!([]);
        config["linux"]["devices"] =
            json!([{ "path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200 }]);
        config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
    })
}

// With VM isolation it is a VM in a VM, whose instructions are translated twice where there is no KVM.
in_both!(systemd_makes_the_control_groups_of_a_vm, |h| {
    h.write_config("memory-mib = 1536\nvcpus = 2");
    let machine = Machine::boot_with(h, with_vms);
    machine.limit_in_slice(200_000);
    let run = "--config /vm.toml run --isolation vm --detach --bundle /inner box";
    // A step after the scope was made fails: it goes with the rest. In a VM, before there is another.
    let step = if h.isolation == Isolation::Vm { "vm-group" } else { "vm" };
    let failing = format!("RUNHCS_FAIL_AT={step} runhcs --root /run/inner --systemd-cgroup {run}");
    machine.sh(&failing).refused("failure injected");
    assert_eq!(machine.property("ActiveState"), "inactive");

    machine.runhcs(run).ok();
    machine.has(&[
        ("Slice", "test.slice"),
        ("ActiveState", "active"),
        ("Delegate", "yes"),
        ("ControlGroup", "/test.slice/box-one.scope"),
        ("CPUQuotaPerSecUSec", "2s"),
        ("TimeoutStopUSec", "5s"),
        // The VM's processes have what they need; devices and processes of the container are
        // the guest's to limit.
        ("DevicePolicy", "auto"),
    ]);
    assert_ne!(machine.property("TasksMax"), "50");
    // The guest has 256 MiB, and QEMU as much.
    assert_eq!(machine.limit("memory.limit_in_bytes", "memory.max"), (512 << 20).to_string());
    assert_eq!(machine.limit("cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("200000"));
    // All of the VM's processes are in it, and nothing else is left there.
    let script = "for f in memory/ systemd/ ''; do
            cat /sys/fs/cgroup/${f}test.slice/box-one.scope/cgroup.procs && break
        done 2>/dev/null | while read pid; do tr '\\0' ' ' </proc/$pid/cmdline; echo; done";
    let inside = machine.sh(script).ok().stdout;
    assert_eq!(inside.lines().count(), 3, "{inside}");
    for program in ["qemu-system", "vm-shim serve", "vm-shim virtiofs"] {
        assert!(inside.contains(program), "{program} in {inside}");
    }
    if h.isolation == Isolation::Process {
        assert_eq!(machine.runhcs("exec box echo fine").ok().stdout, "fine\n");
    }

    // A later quota holds on the host, too, and systemd keeps it.
    machine.runhcs("update --cpu-quota 90000 box").ok();
    assert_eq!(machine.property("CPUQuotaPerSecUSec"), "900ms");
    machine.sh("systemctl daemon-reload").ok();
    assert_eq!(machine.limit("cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("90000"));

    machine.runhcs("delete --force box").ok();
    assert_eq!(machine.property("ActiveState"), "inactive");
    assert_eq!(machine.limit("pids.max", "pids.max"), "");

    // Without systemd's flag the form is refused, not half heeded.
    let plain = format!("runhcs --root /run/inner {run}");
    machine.sh(&plain).refused("it goes with --systemd-cgroup");
    h.runhcs(&["delete", "--force", "machine"]).ok();
});

#[test]
fn a_users_systemd_makes_control_groups() {
    // It has control groups of version 2 only.
    Harness::run(Isolation::Vm, "a_users_systemd_makes_control_groups", |h| {
        let machine = Machine::boot(h);
        let as_user = |script: &str| {
            h.runhcs(&["exec", "--user", "1000:1000", "machine", "sh", "-c", script])
        };
        machine.sh("chown -R 1000:1000 /inner && rm /inner/config.json").ok();
        as_user("runhcs spec --rootless --bundle /inner").ok();
        machine.configure(|config| {
            config["process"]["terminal"] = json!(false);
            config["process"]["args"] = json!(["sleep", "1000"]);
            config["linux"]["cgroupsPath"] = json!(":box:one");
            config["linux"]["resources"] = json!({ "pids": { "limit": 50 } });
        });
        let script = "set -e\n\
            runhcs --systemd-cgroup run --detach --bundle /inner box </dev/null >/dev/null 2>&1\n\
            systemctl --user show --value -p ControlGroup box-one.scope\n\
            systemctl --user show --value -p TasksMax box-one.scope\n\
            runhcs exec box echo inside\n\
            runhcs delete --force box\n\
            systemctl --user show --value -p ActiveState box-one.scope\n";
        machine.sh("mkdir /run/user && chown 1000:1000 /run/user").ok();
        machine.sh(&format!("echo '{script}' >/job.sh && systemctl start user.service")).ok();
        let started = as_user("XDG_RUNTIME_DIR=/run/user systemctl --user start job.service");
        let said = machine.sh("cat /run/user/said").stdout;
        assert_eq!(started.code, 0, "{started:?}: {said}");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], "/system.slice/user.service/user.slice/box-one.scope", "{said}");
        assert_eq!(lines[1], "50", "{said}");
        assert_eq!(lines[2], "inside", "{said}");
        assert_eq!(lines.last(), Some(&"inactive"), "{said}");
        h.runhcs(&["delete", "--force", "machine"]).ok();
    });
}
