//! Options of VMs, by annotation and by the configuration file, as a container finds them.

use runhcs_tests::{Bundle, Harness, Isolation, in_both};
use serde_json::json;

fn annotated(h: &Harness, name: &str, script: &str, annotations: serde_json::Value) -> Bundle {
    Bundle::new(h, name, &["sh", "-c", script])
        .edit(|config| config["annotations"] = annotations.clone())
}

/// What the guest of `box` finds of its VM: where random numbers come from, its processors, its
/// command line, whether it has a console, its memory and its buses.
const FIND: &str = "cat /sys/class/misc/hw_random/rng_current
    grep -c '^processor' /proc/cpuinfo; grep -m 1 -o -w avx2 /proc/cpuinfo
    grep -o 'a=.*' /proc/cmdline | cut -d' ' -f1; test -e /sys/class/tty/ttyS0/iomem_base
    echo $?; grep MemTotal /proc/meminfo | grep -o '[0-9]*'; ls /sys/bus/pci/devices | wc -l";

/// Runs `box`, whose VM is to be as the tests below say, with this word on its command line.
fn expect_found(h: &Harness, bundle: &Bundle, word: &str) {
    let found = h.new_container(&["run", "--keep"], bundle, "box").ok().stdout;
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines[..4], ["virtio_rng.0", "2", word, "1"], "{found}");
    let kib: u64 = lines[4].parse().unwrap();
    assert!((256 << 10..320 << 10).contains(&kib), "{found}");
    assert!(lines[5].parse::<u32>().unwrap() > 3, "{found}");
    // The console's log is there and empty.
    let console = h.root().join("box/vm/console.log");
    assert_eq!(std::fs::read_to_string(console).unwrap_or_default(), "");
    // KVM wasn't tried, whether it works or not.
    let log = std::fs::read_to_string(h.root().join("box/vm.log")).unwrap();
    assert!(log.contains("accelerator=\"tcg\"") && !log.contains("KVM"), "{log}");
}

#[test]
fn the_guest_is_as_the_annotations_say() {
    Harness::run(Isolation::Vm, "annotated", |h| {
        // Stronger than the file.
        h.write_config(
            "vcpus = 1\nmemory-mib = 200\nconsole = \"log\"\ncpu-features = \"+avx2\"\n\
             kernel-args = \"a=file\"\nmachine = \"microvm\"\nentropy = \"cpu\"\n\
             accelerator = \"kvm\"",
        );
        let bundle = annotated(
            h,
            "box",
            FIND,
            json!({
                "io.runhcs.vm.entropy": "host",
                "io.runhcs.vm.console": "off",
                "io.runhcs.vm.cpu-features": "-avx2,-avx",
                "io.runhcs.vm.kernel-args": "a=annotation",
                "io.runhcs.vm.preallocate-memory": "true",
                "io.runhcs.vm.machine": "q35",
                "io.runhcs.vm.accelerator": "tcg",
                "io.microsoft.virtualmachine.computetopology.processor.count": "2",
                "io.microsoft.virtualmachine.computetopology.memory.sizeinmb": "320",
                "io.microsoft.virtualmachine.computetopology.processor.weight": "100"
            }),
        );
        expect_found(h, &bundle, "a=annotation");
        let log = std::fs::read_to_string(h.path("log")).unwrap();
        assert!(log.contains("processor.weight") && log.contains("no effect"), "{log}");
        h.runhcs(&["delete", "box"]).ok();
    });
}

#[test]
fn the_guest_is_as_the_file_says() {
    Harness::run(Isolation::Vm, "by file", |h| {
        h.write_config(
            "vcpus = 2\nmemory-mib = 320\nconsole = \"off\"\ncpu-features = \"-avx2,-avx\"\n\
             kernel-args = \"a=file\"\nmachine = \"q35\"\nentropy = \"host\"\n\
             accelerator = \"tcg\"\npreallocate-memory = true",
        );
        expect_found(h, &annotated(h, "box", FIND, json!({})), "a=file");
        h.runhcs(&["delete", "box"]).ok();
    });
}

/// What the file names boots in all other tests.
#[test]
fn the_guest_is_as_the_vm_object_says() {
    Harness::run(Isolation::Vm, "object", |h| {
        h.write_config("vcpus = 1\nmemory-mib = 200\nmax-memory-mib = 900\nmachine = \"q35\"");
        let script = "grep -c '^processor' /proc/cpuinfo; grep MemTotal /proc/meminfo";
        let image = runhcs_tests::target().join("guest-image");
        let (kernel, initrd) = (image.join("vmlinux"), image.join("initramfs.img"));
        let object = |name: &str, hardware: serde_json::Value| {
            let bundle = Bundle::new(h, name, &["sh", "-c", script]).edit(|config| {
                config["vm"] = json!({
                    "kernel": { "path": kernel, "initrd": initrd }, "hwConfig": hardware
                });
            });
            h.new_container(&["run"], &bundle, name)
        };
        let found = object("box", json!({ "vcpus": 2, "memory": (321 << 20) - 1 })).ok().stdout;
        let words: Vec<&str> = found.split_whitespace().collect();
        assert_eq!(words[0], "2", "{found}");
        let kib: u64 = words[2].parse().unwrap();
        assert!((256 << 10..320 << 10).contains(&kib), "{found}");
        for (name, hardware) in [
            ("deviceTree", json!({ "deviceTree": "/vm.dtb" })),
            ("irqs", json!({ "irqs": [11] })),
            ("vcpus", json!({ "vcpus": 0 })),
            ("memory", json!({ "memory": 4 << 20 })),
        ] {
            object(name, hardware).refused(&format!("vm.hwConfig.{name}: "));
        }
    });
}

#[test]
fn the_guests_image_is_the_one_that_is_named() {
    Harness::run(Isolation::Vm, "named image", |h| {
        let image = runhcs_tests::target().join("guest-image");
        let names = [("kernel", "vmlinux"), ("initramfs", "initramfs.img")];
        let right: serde_json::Map<_, _> = names
            .iter()
            .map(|(name, file)| (format!("io.runhcs.vm.{name}"), json!(image.join(file))))
            .collect();
        let nowhere = std::path::Path::new("/nonexistent");
        for (name, file) in names {
            let wrong = json!({ format!("io.runhcs.vm.{name}"): nowhere.join(file) });
            let bundle = annotated(h, name, "true", wrong);
            let missing = format!("/nonexistent/{file}");
            h.new_container(&["create"], &bundle, "box").refused(&missing);
        }
        h.write_config_for(nowhere, "");
        let bundle = annotated(h, "by-file", "true", json!({}));
        h.new_container(&["create"], &bundle, "box").refused("/nonexistent/vmlinux");
        let bundle = annotated(h, "box", "echo it runs", right.into());
        assert_eq!(h.new_container(&["run"], &bundle, "box").ok().stdout, "it runs\n");
    });
}

#[test]
fn what_is_no_option_is_refused_by_its_name() {
    Harness::run(Isolation::Vm, "refused", |h| {
        let create = |name: &str, annotations: serde_json::Value, message: &str| {
            let bundle = annotated(h, "box", "true", annotations);
            let refused = h.new_container(&["create"], &bundle, "box").refused(message);
            assert!(refused.stderr.contains(name), "{name} in {refused:?}");
            std::fs::remove_dir_all(bundle.path()).unwrap();
        };
        for (name, value, message) in [
            ("io.runhcs.vm.vcpu", "2", "no such annotation"),
            ("io.microsoft.virtualmachine.processor.count", "2", "no such annotation"),
            ("io.microsoft.virtualmachine.lcow.securitypolicy", "x", "confidential VMs"),
        ] {
            create(name, json!({ name: value }), message);
        }
        // Each option with a value that is none, by an annotation and, in TOML, by the file.
        for (option, value, in_file, message) in [
            ("vcpus", "0", "0", "\"0\" is not a number of virtual CPUs from 1 to 255"),
            ("max-vcpus", "256", "256", "\"256\" is not a number of virtual CPUs"),
            ("memory-mib", "63", "63", "\"63\" is not a number of MiB from 64"),
            ("max-memory-mib", "1048577", "1048577", "\"1048577\" is not a number of MiB"),
            ("kernel", "vmlinux", "", "\"vmlinux\" is not an absolute path"),
            ("initramfs", "image", "", "\"image\" is not an absolute path"),
            ("kernel-args", "a\tb", "\"a\\tb\"", "only printable ASCII"),
            ("cpu-features", "avx2", "\"avx2\"", "\"avx2\" is no feature"),
            ("disk-bandwidth", "-1", "-1", "-1"),
            ("disk-iops", "-2", "-2", "-2"),
            ("boot-timeout-seconds", "3601", "3601", "\"3601\" is not a number of seconds"),
            ("huge-pages", "2M", "\"2M\"", "2M"),
            ("preallocate-memory", "yes", "\"yes\"", "yes"),
            ("machine", "pc", "\"pc\"", "pc"),
            ("accelerator", "xen", "\"xen\"", "xen"),
            ("console", "on", "\"on\"", "on"),
            ("entropy", "none", "\"none\"", "none"),
            ("template", "maybe", "\"maybe\"", "maybe"),
        ] {
            let name = format!("io.runhcs.vm.{option}");
            create(&name, json!({ &name: value }), message);
            if !in_file.is_empty() {
                h.write_config(&format!("{option} = {in_file}"));
                create(option, json!({}), message);
                h.write_config("");
            }
        }
        h.write_config("vcpu = 2");
        create("vcpu", json!({}), "unknown field");
        h.write_config_for(std::path::Path::new("image"), "");
        create("kernel in the configuration file", json!({}), "is not an absolute path");
        h.write_config("");

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

/// The limits of a VM's disks, as QEMU was given them; empty if it has none.
fn disk_limits(h: &Harness, id: &str) -> String {
    let lock = std::fs::read_to_string(h.root().join(id).join("vm/lock")).unwrap();
    let (shim, guest) = (lock.trim(), format!("guest={id}@vm"));
    let children = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let lines = children.split_whitespace().map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).into_owned()
    });
    let lines: Vec<String> = lines.filter(|line| line.contains(&guest)).collect();
    assert_eq!(lines.len(), 1, "QEMU among {children:?}");
    let limits = lines[0].split('\0').find(|word| word.contains("throttle-group"));
    let Some(limits) = limits else { return String::new() };
    let limits: serde_json::Value = serde_json::from_str(limits).unwrap();
    limits["limits"].to_string()
}

#[test]
fn qemu_is_given_the_limits_of_disks() {
    Harness::run(Isolation::Vm, "disk limits", |h| {
        let (bandwidth, iops) = ("io.runhcs.vm.disk-bandwidth", "io.runhcs.vm.disk-iops");
        let model = "io.microsoft.virtualmachine.storageqos";
        let (file, none) = ("disk-bandwidth = 3000000\ndisk-iops = 30", "");
        for (config, annotations, expected) in [
            (none, json!({}), ""),
            (file, json!({}), r#"{"bps-total":3000000,"iops-total":30}"#),
            (
                file,
                json!({ bandwidth: "4000000", iops: "40" }),
                r#"{"bps-total":4000000,"iops-total":40}"#,
            ),
            (file, json!({ bandwidth: "0" }), r#"{"iops-total":30}"#),
            (none, json!({ format!("{model}.iopsmaximum"): "50" }), r#"{"iops-total":50}"#),
        ] {
            h.write_config(config);
            let bundle = annotated(h, "box", "sleep 1000", annotations);
            h.new_container(&["create"], &bundle, "box").ok();
            assert_eq!(disk_limits(h, "box"), expected, "{config}");
            h.runhcs(&["delete", "--force", "box"]).ok();
            std::fs::remove_dir_all(bundle.path()).unwrap();
        }
    });
}

/// Reading can't be faster than the limit, however slow the machine is: the guest's clock says how
/// much may have been read at the most.
#[test]
fn disks_keep_to_their_limits() {
    Harness::run(Isolation::Vm, "throttled", |h| {
        let disk = h.path("disk");
        let disk = disk.to_str().unwrap();
        h.runhcs(&["create-scratch", "--destpath", disk, "--sizeGB", "1"]).ok();
        let script = |size: u32, count: u32| {
            format!(
                "dd if=/dev/zero of=/file bs=64k count=64 conv=fsync 2>/dev/null
                read before _ < /proc/uptime
                dd if=/file of=/dev/null bs={size} count={count} iflag=direct 2>/dev/null
                read after _ < /proc/uptime; echo ${{before%.*}} ${{after%.*}}"
            )
        };
        // Four seconds' worth each, of which the first may be for free, and the clock is cut off.
        for (name, limit, size, count) in
            [("disk-bandwidth", "1048576", 65536, 64), ("disk-iops", "40", 4096, 160)]
        {
            let annotations = json!({
                "io.runhcs.scratch": disk, format!("io.runhcs.vm.{name}"): limit
            });
            let bundle = annotated(h, "box", &script(size, count), annotations);
            let times = h.new_container(&["run"], &bundle, "box").ok().stdout;
            let (before, after) = times.trim().split_once(' ').unwrap();
            let took = after.parse::<u64>().unwrap() - before.parse::<u64>().unwrap();
            assert!(took >= 2, "{name}: {count} times {size} bytes in {took} s");
            std::fs::remove_dir_all(bundle.path()).unwrap();
        }
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
        let size = "memory-mib = 128\npreallocate-memory = true";
        // The stronger source says so; there are none yet.
        h.write_config(&format!("huge-pages = false\n{size}"));
        let wanted = json!({ "io.runhcs.vm.huge-pages": "true" });
        let bundle = annotated(h, "none", "sleep 1000", wanted);
        h.new_container(&["create"], &bundle, "box").refused("Cannot allocate memory");
        h.write_config(&format!("huge-pages = true\n{size}"));
        let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
        let _pages = HugePages::reserve(64);
        let before = free();
        h.new_container(&["run", "--detach"], &bundle, "box").ok();
        assert_eq!(before - free(), 64);
        h.runhcs(&["exec", "box", "true"]).ok();
        h.runhcs(&["delete", "--force", "box"]).ok();
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
