//! VMs that grow by what is asked of them.

use runhcs_tests::{Bundle, Harness, Isolation};
use serde_json::json;

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
