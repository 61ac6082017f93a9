//! Options of VMs, by annotation and by the configuration file, as a container finds them.

use runhcs_tests::{Bundle, Harness, Isolation, in_both};
use serde_json::json;

fn annotated(h: &Harness, name: &str, script: &str, annotations: serde_json::Value) -> Bundle {
    Bundle::new(h, name, &["sh", "-c", script])
        .edit(|config| config["annotations"] = annotations.clone())
}

#[test]
fn the_guest_is_as_the_annotations_say() {
    Harness::run(Isolation::Vm, "annotated", |h| {
        // Stronger than the file.
        h.write_config(
            "vcpus = 1\nconsole = \"log\"\ncpu-features = \"+avx2\"\nkernel-args = \"a=file\"",
        );
        let script = "cat /sys/class/misc/hw_random/rng_current
            grep -c '^processor' /proc/cpuinfo; grep -m 1 -o -w avx2 /proc/cpuinfo
            grep -o 'a=.*' /proc/cmdline | cut -d' ' -f1; test -e /sys/class/tty/ttyS0/iomem_base
            echo $?; grep MemTotal /proc/meminfo | grep -o '[0-9]*'; ls /sys/bus/pci/devices | wc -l";
        let bundle = annotated(
            h,
            "box",
            script,
            json!({
                "io.runhcs.vm.entropy": "host",
                "io.runhcs.vm.console": "off",
                "io.runhcs.vm.cpu-features": "-avx2,-avx",
                "io.runhcs.vm.kernel-args": "a=annotation",
                "io.runhcs.vm.preallocate-memory": "true",
                "io.runhcs.vm.machine": "q35",
                "io.microsoft.virtualmachine.computetopology.processor.count": "2",
                "io.microsoft.virtualmachine.computetopology.memory.sizeinmb": "320",
                "io.microsoft.virtualmachine.computetopology.processor.weight": "100"
            }),
        );
        let found = h.new_container(&["run", "--keep"], &bundle, "box").ok().stdout;
        let lines: Vec<&str> = found.lines().collect();
        assert_eq!(lines[..4], ["virtio_rng.0", "2", "a=annotation", "1"], "{found}");
        let kib: u64 = lines[4].parse().unwrap();
        assert!((256 << 10..320 << 10).contains(&kib), "{found}");
        assert!(lines[5].parse::<u32>().unwrap() > 3, "{found}");
        // The console's log is there and empty.
        let console = h.root().join("box/vm/console.log");
        assert_eq!(std::fs::read_to_string(console).unwrap_or_default(), "");
        let log = std::fs::read_to_string(h.path("log")).unwrap();
        assert!(log.contains("processor.weight") && log.contains("no effect"), "{log}");
        h.runhcs(&["delete", "box"]).ok();
    });
}

#[test]
fn what_is_no_option_is_refused_by_its_name() {
    Harness::run(Isolation::Vm, "refused", |h| {
        for (name, value, message) in [
            ("io.runhcs.vm.vcpu", "2", "no such annotation"),
            ("io.runhcs.vm.cpu-features", "avx2", "\"avx2\" is no feature"),
            ("io.runhcs.vm.huge-pages", "2M", "neither `true` nor `false`"),
            ("io.microsoft.virtualmachine.processor.count", "2", "no such annotation"),
            ("io.microsoft.virtualmachine.lcow.securitypolicy", "x", "confidential VMs"),
        ] {
            let bundle = annotated(h, "box", "true", json!({ name: value }));
            let refused = h.new_container(&["create"], &bundle, "box").refused(message);
            assert!(refused.stderr.contains(name), "{refused:?}");
            std::fs::remove_dir_all(bundle.path()).unwrap();
        }
        let bundle = annotated(h, "box", "true", json!({ "io.runhcs.vm.console": "off" }));
        let socket = h.path("console");
        let verb = ["create", "--vm-console", socket.to_str().unwrap()];
        h.new_container(&verb, &bundle, "box").refused("the VM is to have no console");
        let verb = ["create", "--preserve-fds", "1"];
        h.new_container(&verb, &bundle, "box").refused("--preserve-fds can't be used with VM");
        // Only QEMU knows what it can do.
        let bundle = bundle.edit(|config| {
            config["annotations"] = json!({ "io.runhcs.vm.cpu-features": "+no-such-feature" });
        });
        h.new_container(&["create"], &bundle, "box").refused("no-such-feature");
    });
}

/// Reading can't be faster than the limit, however slow the machine is.
#[test]
fn the_throughput_of_disks_is_limited() {
    Harness::run(Isolation::Vm, "throttled", |h| {
        let disk = h.path("disk");
        let disk = disk.to_str().unwrap();
        h.runhcs(&["create-scratch", "--destpath", disk, "--sizeGB", "1"]).ok();
        let script = "dd if=/dev/zero of=/file bs=64k count=64 conv=fsync 2>/dev/null
            read before _ < /proc/uptime; dd if=/file of=/dev/null bs=64k iflag=direct 2>/dev/null
            read after _ < /proc/uptime; echo ${before%.*} ${after%.*}";
        let bundle = annotated(
            h,
            "box",
            script,
            json!({
                "io.runhcs.scratch": disk,
                "io.microsoft.virtualmachine.storageqos.bandwidthmaximum": "1048576"
            }),
        );
        let times = h.new_container(&["run"], &bundle, "box").ok().stdout;
        let (before, after) = times.trim().split_once(' ').unwrap();
        let took = after.parse::<u64>().unwrap() - before.parse::<u64>().unwrap();
        // 4 MiB at 1 MiB a second, of which the first may be for free.
        assert!(took >= 2, "4 MiB in {took} s");
    });
}

/// Huge pages of the host's, for as long as a test takes.
struct HugePages {
    before: String,
}

const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

impl HugePages {
    fn reserve(more: u64) -> Self {
        let before = std::fs::read_to_string(HUGE_PAGES).unwrap().trim().to_owned();
        let wanted = before.parse::<u64>().unwrap() + more;
        std::fs::write(HUGE_PAGES, wanted.to_string()).unwrap();
        let pages = Self { before };
        let found = std::fs::read_to_string(HUGE_PAGES).unwrap();
        assert_eq!(found.trim(), wanted.to_string(), "the host has no {more} huge pages to spare");
        pages
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = std::fs::write(HUGE_PAGES, &self.before);
    }
}

#[test]
fn a_vm_can_be_on_huge_pages() {
    Harness::run(Isolation::Vm, "huge", |h| {
        let free = || {
            let path = HUGE_PAGES.replace("nr_", "free_");
            std::fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap()
        };
        h.write_config("huge-pages = true\nmemory-mib = 128\npreallocate-memory = true");
        let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
        h.new_container(&["create"], &bundle, "box").refused("Cannot allocate memory");
        let _pages = HugePages::reserve(64);
        let before = free();
        h.new_container(&["run", "--detach"], &bundle, "box").ok();
        assert_eq!(before - free(), 64);
        h.runhcs(&["exec", "box", "true"]).ok();
        h.runhcs(&["delete", "--force", "box"]).ok();
    });
}

#[test]
fn a_vm_grows_as_far_as_it_may() {
    Harness::run(Isolation::Vm, "growing", |h| {
        h.write_config("machine = \"q35\"\nmax-memory-mib = 512\nmax-vcpus = 3");
        let bundle = Bundle::new(h, "box", &["sleep", "1000"]).edit(|config| {
            config["linux"]["resources"]["memory"] = json!({ "limit": 128 << 20 });
            config["linux"]["resources"]["cpu"] = json!({ "quota": 80_000, "period": 100_000 });
        });
        // The limits that hold the VM on this host: there must be room for what it grows to.
        let of_vm = |version_1: &str, version_2: &str| {
            let group = format!("runhcs-e2e/{}/box", h.token);
            let controller = version_1.split('.').next().unwrap();
            let paths =
                [format!("{controller}/{group}/{version_1}"), format!("{group}/{version_2}")];
            let read = |path: &String| std::fs::read_to_string(format!("/sys/fs/cgroup/{path}"));
            paths.iter().find_map(|path| read(path).ok()).unwrap().trim().to_owned()
        };
        h.new_container(&["run", "--detach"], &bundle, "box").ok();
        let count = || {
            let script = "grep MemTotal /proc/meminfo | tr -dc 0-9; echo
                grep -c '^processor' /proc/cpuinfo; cat /sys/fs/cgroup/memory.max";
            let shown = h.runhcs(&["exec", "box", "sh", "-c", script]).ok().stdout;
            let lines: Vec<&str> = shown.lines().collect();
            (lines[0].parse::<u64>().unwrap() >> 10, lines[1].to_owned(), lines[2].to_owned())
        };
        let update = |options: &[&str]| h.runhcs(&[&["update"], options, &["box"]].concat());
        assert_eq!(of_vm("memory.limit_in_bytes", "memory.max"), ((512 + 256) << 20).to_string());
        assert!(of_vm("cpu.cfs_quota_us", "cpu.max").starts_with("80000"));
        let (before, vcpus, _) = count();
        assert!(before < 256 && vcpus == "1", "{before} {vcpus}");
        // What fits changes nothing of the VM.
        update(&["--memory", "100M", "--cpu-quota", "50000", "--cpu-period", "100000"]).ok();
        assert_eq!(count(), (before, "1".to_owned(), (100 << 20).to_string()));
        update(&["--memory", "300M", "--cpu-quota", "150000", "--cpu-period", "100000"]).ok();
        let (after, vcpus, limit) = count();
        assert!(after > before + 200 && vcpus == "2", "{before} {after} {vcpus}");
        assert_eq!(limit, (300 << 20).to_string());
        assert!(of_vm("cpu.cfs_quota_us", "cpu.max").starts_with("150000"));
        // The new memory is used, also by the shared file system, which reads into it.
        let big = std::fs::File::create(bundle.path().join("rootfs/big")).unwrap();
        big.set_len(200 << 20).unwrap();
        let read = ["exec", "box", "dd", "if=/big", "of=/dev/null", "bs=200M", "count=1"];
        h.runhcs(&read).ok();
        update(&["--memory", "513M"]).refused("it has 512 MiB and may grow to 512");
        update(&["--cpu-quota", "400000", "--cpu-period", "100000"])
            .refused("a quota of 4 processors is more than the VM has: 2, and it may grow to 3");
        assert_eq!(count().2, (300 << 20).to_string());
        // What is refused has changed nothing on the host either.
        assert!(of_vm("cpu.cfs_quota_us", "cpu.max").starts_with("150000"));
        h.runhcs(&["delete", "--force", "box"]).ok();

        h.write_config("");
        let bundle = Bundle::new(h, "fixed", &["sleep", "1000"]);
        h.new_container(&["run", "--detach"], &bundle, "fixed").ok();
        h.runhcs(&["update", "--memory", "257M", "fixed"]).refused("may grow to 256");
        h.runhcs(&["delete", "--force", "fixed"]).ok();
        h.write_config("max-vcpus = 2");
        let bundle = Bundle::new(h, "never", &["true"]);
        h.new_container(&["create"], &bundle, "never")
            .refused("io.runhcs.vm.max-vcpus: a VM of the machine type microvm can't grow");
    });
}

#[test]
fn a_pods_vm_grows_by_its_members() {
    Harness::run(Isolation::Vm, "growing members", |h| {
        let member_of = |pod: &str, id: &str| {
            let bundle = Bundle::new(h, id, &["sleep", "1000"]).in_pod("container", pod);
            let bundle = bundle.edit(|config| {
                config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
            });
            h.runhcs(&["run", "--detach", "--bundle", bundle.path().to_str().unwrap(), id]).ok();
        };
        let boot = |pod: &str| {
            let bundle = Bundle::new(h, pod, &["sleep", "1000"]).in_pod("sandbox", pod);
            h.new_container(&["run", "--detach"], &bundle, pod).ok();
        };
        let exec = |id: &str, script: &str| h.runhcs(&["exec", id, "sh", "-c", script]).ok().stdout;
        let mebibytes = |id: &str| {
            let kib = exec(id, "grep MemTotal /proc/meminfo | tr -dc 0-9");
            kib.parse::<u64>().unwrap() >> 10
        };
        let vcpus = |id: &str| exec(id, "grep -c '^processor' /proc/cpuinfo").trim().to_owned();
        let limits = |id: &str| exec(id, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max");
        let update = |id: &str, options: &[&str]| h.runhcs(&[&["update"], options, &[id]].concat());

        h.write_config("machine = \"q35\"\nmax-memory-mib = 512\nmax-vcpus = 3");
        boot("pod");
        member_of("pod", "one");
        let before = mebibytes("one");
        assert!(before < 256 && vcpus("one") == "1", "{before}");
        update("one", &["--memory", "300M", "--cpu-quota", "150000", "--cpu-period", "100000"])
            .ok();
        assert_eq!(limits("one"), format!("{}\n150000 100000\n", 300 << 20));
        // All of the pod has what one of it made the VM grow to, also who comes later.
        member_of("pod", "two");
        for id in ["pod", "one", "two"] {
            assert!(mebibytes(id) > before + 200, "{id}: {before} {}", mebibytes(id));
            assert_eq!(vcpus(id), "2", "{id}");
        }
        // Another one's quota, of the period that it has already; and what the VM has is enough for.
        update("two", &["--cpu-quota", "250000"]).ok();
        update("two", &["--memory", "200M"]).ok();
        assert_eq!(
            (vcpus("one").as_str(), limits("two")),
            ("3", format!("{}\n250000 100000\n", 200 << 20))
        );
        update("two", &["--cpu-quota", "350000"]).refused("it may grow to 3");
        update("two", &["--memory", "513M"]).refused("it has 512 MiB and may grow to 512");
        assert_eq!(limits("two"), format!("{}\n250000 100000\n", 200 << 20));
        h.runhcs(&["delete", "--force", "one"]).ok();
        assert_eq!(vcpus("two"), "3");
        h.runhcs(&["delete", "--force", "two"]).ok();
        h.runhcs(&["delete", "--force", "pod"]).ok();

        // A machine that can't grow says so, and how one could.
        h.write_config("");
        boot("fixed");
        member_of("fixed", "three");
        let refused = update("three", &["--memory", "257M"]).refused("may grow to 256");
        assert!(refused.stderr.contains("machine type q35, max-memory-mib"), "{refused:?}");
        let refused = update("three", &["--cpu-quota", "110000"]).refused("it may grow to 1");
        assert!(refused.stderr.contains("machine type q35, max-vcpus"), "{refused:?}");
        assert_eq!(limits("three"), format!("{}\nmax 100000\n", 64 << 20));
        for id in ["three", "fixed"] {
            h.runhcs(&["delete", "--force", id]).ok();
        }
    });
}

in_both!(the_models_annotations_of_containers_are_heeded, |h: &Harness| {
    let script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes
        cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us
        stat -f -c '%b %S' /dev/shm; ulimit -S -c; ulimit -H -c";
    let annotations = json!({
        "io.microsoft.container.memory.sizeinmb": "48",
        "io.microsoft.container.processor.count": "1",
        "io.microsoft.lcow.shm.size-kb": "400",
        "io.microsoft.lcow.rlimitcore": "512;1024",
        "io.microsoft.container.processdumplocation": "/dumps",
    });
    let bundle = annotated(h, "box", script, annotations);
    let printed = h.new_container(&["run"], &bundle, "box").stdout;
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], (48 << 20).to_string(), "{printed}");
    assert!(lines[1].starts_with("100000"), "{printed}");
    // In blocks of 512 bytes.
    assert_eq!(lines[2..], ["100 4096", "1", "2"], "{printed}");
    let log = std::fs::read_to_string(h.path("log")).unwrap();
    assert!(log.contains("processdumplocation") && log.contains("no effect"), "{log}");
    for (name, value, message) in [
        ("io.microsoft.container.memory.sizeinmb", "much", "no whole number"),
        ("io.microsoft.container.processor.weight", "50", "linux.resources.cpu.shares"),
        ("io.microsoft.container.storage.qos.iopsmaximum", "50", "linux.resources.blockIO"),
        ("io.microsoft.container.memory", "50", "no such annotation"),
    ] {
        let bundle = annotated(h, "bad", "true", json!({ name: value }));
        let refused = h.new_container(&["create"], &bundle, "bad").refused(message);
        assert!(refused.stderr.contains(name), "{refused:?}");
        std::fs::remove_dir_all(bundle.path()).unwrap();
    }
});
