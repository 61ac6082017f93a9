//! Block devices of the host in containers, and scratch disks.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use runhcs_tests::{Bundle, Harness, Isolation, LoopDevice, in_both};
use serde_json::json;

const MIB: usize = 1 << 20;

/// A file of zeroes that begins with a word.
fn image(h: &Harness, name: &str, word: &str) -> PathBuf {
    let path = h.path(name);
    let mut content = vec![0; 8 * MIB];
    content[..word.len()].copy_from_slice(word.as_bytes());
    std::fs::write(&path, content).unwrap();
    path
}

/// A bundle with a device at `path`, and what it may do with it.
fn with_device(bundle: Bundle, device: &LoopDevice, path: &str, access: &str) -> Bundle {
    let (major, minor) = device.number();
    bundle.edit(|config| {
        let linux = &mut config["linux"];
        if !linux["devices"].is_array() {
            linux["devices"] = json!([]);
        }
        linux["devices"].as_array_mut().unwrap().push(json!({
            "path": path, "type": "b", "major": major, "minor": minor,
            "fileMode": 0o640, "uid": 0, "gid": 8
        }));
        let rules = &mut linux["resources"]["devices"];
        if !rules.is_array() {
            *rules = json!([{ "allow": false, "access": "rwm" }]);
        }
        rules.as_array_mut().unwrap().push(json!({
            "allow": true, "type": "b", "major": major, "minor": minor, "access": access
        }));
    })
}

fn read_at(file: &Path, offset: u64, length: usize) -> String {
    let mut buffer = vec![0; length];
    std::fs::File::open(file).unwrap().read_exact_at(&mut buffer, offset).unwrap();
    String::from_utf8(buffer).unwrap()
}

/// Runs a member of a pod to its end.
fn run_member(h: &Harness, bundle: &Bundle, id: &str) -> runhcs_tests::Outcome {
    h.runhcs(&["run", "--bundle", bundle.path().to_str().unwrap(), id])
}

in_both!(a_block_device_is_passed_through, |h: &Harness| {
    let (file, fixed) = (image(h, "file", "marker"), image(h, "fixed", "constant"));
    let (device, only_read) = (LoopDevice::new(&file), LoopDevice::new(&fixed));
    let script = "stat -c '%F %a %u %g' /dev/data; head -c 6 /dev/data; echo
        echo written | dd of=/dev/data bs=4096 seek=1 conv=fsync,notrunc 2>/dev/null; echo $?
        head -c 8 /dev/only/read; echo
        echo broken | dd of=/dev/only/read conv=fsync,notrunc 2>/dev/null; echo $?";
    // Twice: the first container lets go of the device.
    for id in ["first", "second"] {
        let bundle = Bundle::new(h, id, &["sh", "-c", script]);
        let bundle = with_device(bundle, &device, "/dev/data", "rw");
        let bundle = with_device(bundle, &only_read, "/dev/only/read", "r");
        let run = h.new_container(&["run"], &bundle, id).ok();
        let expected = "block special file 640 0 8\nmarker\n0\nconstant\n1\n";
        assert_eq!(run.stdout, expected, "{run:?}");
        assert_eq!(read_at(&file, 4096, 8), "written\n");
        std::fs::OpenOptions::new().write(true).open(&file).unwrap().write_at(b"W", 4096).unwrap();
    }
    drop((device, only_read));
    assert_eq!(read_at(&fixed, 0, 8), "constant");
});

// By the numbers that the host has for the device, in the configuration and afterwards.
in_both!(a_devices_throughput_is_limited, |h: &Harness| {
    let file = image(h, "file", "marker");
    let device = LoopDevice::new(&file);
    let (major, minor) = device.number();
    let bundle = with_device(Bundle::new(h, "box", &["sleep", "1000"]), &device, "/dev/data", "rw");
    let limits = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let bundle = bundle.edit(|config| {
        config["linux"]["resources"]["blockIO"] = json!({
            "throttleReadBpsDevice": limits(1_000_000), "throttleWriteIOPSDevice": limits(70)
        });
    });
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    // In the words of version 1, whose files have one limit each, with the numbers taken off.
    let shown = || {
        let script = "if test -e /sys/fs/cgroup/io.max; then sed 's/[^ ]* //' /sys/fs/cgroup/io.max
            else cd /sys/fs/cgroup/blkio
            for f in read_bps write_bps read_iops write_iops; do
                sed \"s/.* /$f /\" blkio.throttle.${f}_device; done; fi
            stat -c '%t:%T' /dev/data; cut -d' ' -f1 /sys/fs/cgroup/io.max 2>/dev/null; true";
        h.runhcs(&["exec", "box", "sh", "-c", script]).ok().stdout
    };
    let expect = |v1: &str, v2: &str| {
        let shown = shown();
        let expected = if h.isolation == Isolation::Vm { v2 } else { v1 };
        assert!(shown.starts_with(expected), "{shown:?}, not {expected:?}");
        if h.isolation == Isolation::Vm {
            // stat(1) has them hexadecimal.
            let mut lines = shown.lines().skip(1);
            let (node, limited) = (lines.next().unwrap(), lines.next().unwrap());
            let (a, b) = node.split_once(':').unwrap();
            let part = |text: &str| u32::from_str_radix(text, 16).unwrap();
            assert_eq!(format!("{}:{}", part(a), part(b)), limited);
        }
    };
    expect("read_bps 1000000\nwrite_iops 70\n", "rbps=1000000 wbps=max riops=max wiops=70\n");
    let file = h.path("resources.json");
    let new = json!({ "blockIO": {
        "throttleReadBpsDevice": limits(2_000_000), "throttleWriteBpsDevice": limits(3_000_000),
        "throttleReadIOPSDevice": limits(40), "throttleWriteIOPSDevice": limits(0)
    } });
    std::fs::write(&file, new.to_string()).unwrap();
    h.runhcs(&["update", "--resources", file.to_str().unwrap(), "box"]).ok();
    expect(
        "read_bps 2000000\nwrite_bps 3000000\nread_iops 40\n",
        "rbps=2000000 wbps=3000000 riops=40 wiops=max\n",
    );
    // A device that is none of the container's, or nobody's.
    let strange = json!({ "blockIO": { "throttleReadBpsDevice":
        [{ "major": 259, "minor": 777, "rate": 1 }] } });
    std::fs::write(&file, strange.to_string()).unwrap();
    let outcome = h.runhcs(&["update", "--resources", file.to_str().unwrap(), "box"]);
    let outcome = outcome.refused("linux.resources.blockIO.throttleReadBpsDevice[0]");
    if h.isolation == Isolation::Vm {
        assert!(outcome.stderr.contains("no device 259:777"), "{outcome:?}");
    }
    h.runhcs(&["delete", "--force", "box"]).ok();
});

#[test]
fn a_pods_containers_bring_block_devices_later() {
    Harness::run(Isolation::Vm, "later", |h| {
        let file = image(h, "file", "marker");
        let device = LoopDevice::new(&file);
        let pod = Bundle::new(h, "pod", &["sleep", "1000"]).in_pod("sandbox", "pod");
        h.new_container(&["run", "--detach"], &pod, "pod").ok();
        let member = |name: &str, program: &[&str]| {
            let bundle = Bundle::new(h, name, program).in_pod("container", "pod");
            with_device(bundle, &device, "/dev/data", "rw")
        };
        // Two have the same disk, with one cache.
        let one = member("one", &["sleep", "1000"]);
        h.runhcs(&["run", "--detach", "--bundle", one.path().to_str().unwrap(), "one"]).ok();
        let say = "echo from one | dd of=/dev/data bs=512 seek=1 conv=notrunc";
        h.runhcs(&["exec", "one", "sh", "-c", say]).ok();
        let two = member("two", &["sh", "-c", "dd if=/dev/data bs=512 skip=1 count=1 | head -n 1"]);
        assert_eq!(run_member(h, &two, "two").ok().stdout, "from one\n");
        // What is in use on the host can't be had by a VM as well. The pod has the device still.
        let path = device.path.to_str().unwrap().to_owned();
        h.runhcs(&["prepare-disk", "--destpath", &path]).refused("is in use on this host");
        h.runhcs(&["delete", "--force", "one"]).ok();
        assert_eq!(read_at(&file, 512, 9), "from one\n");
        // No longer; and what the guest knew of it is forgotten.
        h.runhcs(&["prepare-disk", "--force", "--destpath", &path]).ok();
        let mount_point = h.path("mounted");
        std::fs::create_dir(&mount_point).unwrap();
        let run = |program: &str, arguments: &[&Path]| {
            assert!(Command::new(program).args(arguments).status().unwrap().success());
        };
        run("mount", &[&device.path, &mount_point]);
        let refused = run_member(h, &member("three", &["true"]), "three");
        run("umount", &[&mount_point]);
        refused.refused("a block device is in use on this host, by a mount");
        let magic = "dd if=/dev/data bs=1 skip=1080 count=2 2>/dev/null | tr '\\123\\357' 'ok'";
        let four = member("four", &["sh", "-c", magic]);
        assert_eq!(run_member(h, &four, "four").ok().stdout, "ok");

        let none = Bundle::new(h, "none", &["true"]).in_pod("container", "pod").edit(|config| {
            config["linux"]["devices"] = json!([
                { "path": "/dev/none", "type": "b", "major": 4000, "minor": 7 }
            ]);
        });
        run_member(h, &none, "none")
            .refused("linux.devices[0] (/dev/none): this host has no block device 4000:7");
        h.runhcs(&["delete", "--force", "pod"]).ok();
    });
}

fn with_scratch(bundle: Bundle, value: &str) -> Bundle {
    bundle.edit(|config| {
        if !config["annotations"].is_object() {
            config["annotations"] = json!({});
        }
        config["annotations"]["io.runhcs.scratch"] = json!(value);
    })
}

#[test]
fn changes_of_the_root_go_to_a_scratch_disk() {
    Harness::run(Isolation::Vm, "scratch", |h| {
        let pod = Bundle::new(h, "pod", &["sleep", "1000"]).in_pod("sandbox", "pod");
        let pod = with_scratch(pod, "32M");
        h.new_container(&["run", "--detach"], &pod, "pod").ok();
        let script = "touch /new && rm /bin/env && chmod 700 /tmp && echo changed > /etc/file
            dd if=/dev/zero of=/fill bs=64k count=1024 2>&1 | grep -c 'No space'; rm /fill
            grep ' / ' /proc/mounts | cut -d' ' -f3; ls -d /new /etc/file";
        let changed = h.runhcs(&["exec", "pod", "sh", "-c", script]).ok().stdout;
        assert_eq!(changed, "1\noverlay\n/etc/file\n/new\n");
        let root = pod.path().join("rootfs");
        assert!(root.join("bin/env").is_symlink());
        assert!(!root.join("new").exists() && !root.join("etc/file").exists());

        // A disk with a name is kept, and one container's at a time.
        let disk = h.path("disk");
        let disk = disk.to_str().unwrap();
        h.runhcs(&["create-scratch", "--destpath", disk, "--sizeGB", "1"]).ok();
        let member = |name: &str, program: &[&str]| {
            with_scratch(Bundle::new(h, name, program).in_pod("container", "pod"), disk)
        };
        let write = member("write", &["sh", "-c", "echo kept > /kept; rm /bin/env; sleep 1000"]);
        h.runhcs(&["run", "--detach", "--bundle", write.path().to_str().unwrap(), "write"]).ok();
        runhcs_tests::eventually(
            || h.runhcs(&["exec", "write", "cat", "/kept"]).stdout == "kept\n",
            || format!("{:?}", h.runhcs(&["exec", "write", "ls", "-l", "/"])),
        );
        let read = member("read", &["sh", "-c", "cat /kept; test ! -e /bin/env"]);
        run_member(h, &read, "read").refused("is in use by another container");
        h.runhcs(&["prepare-disk", "--destpath", disk]).refused("is in use by a container");
        h.runhcs(&["delete", "--force", "write"]).ok();
        assert_eq!(run_member(h, &read, "read").ok().stdout, "kept\n");
        h.runhcs(&["delete", "--force", "pod"]).ok();

        // What the last one wrote is on the disk, and nothing is left of the one without a name.
        let checked = Command::new("e2fsck").args(["-p", disk]).output().unwrap();
        assert!(matches!(checked.status.code(), Some(0 | 1)), "{checked:?}");
        let shown = Command::new("debugfs").args(["-R", "cat /upper/kept", disk]).output().unwrap();
        assert_eq!(shown.stdout, b"kept\n");
        assert_eq!(std::fs::read_dir(h.path("scratch")).unwrap().count(), 0);
    });
}

#[test]
fn a_scratch_disk_that_can_not_be_had_is_refused() {
    Harness::run(Isolation::Vm, "no scratch", |h| {
        let create = |value: &str, flag: &str| {
            let bundle = with_scratch(Bundle::new(h, "box", &["true"]), value);
            let path = bundle.path().to_str().unwrap().to_owned();
            let outcome = h.runhcs(&["create", "--isolation", flag, "--bundle", &path, "box"]);
            std::fs::remove_dir_all(bundle.path()).unwrap();
            outcome
        };
        create("64M", "process").refused("only containers in a VM have scratch disks");
        create("1", "vm").refused("io.runhcs.scratch: \"1\" is neither an absolute path nor");
        create("/nonexistent/disk", "vm").refused("open the scratch disk /nonexistent/disk");
        create("/dev/null", "vm").refused("neither an image nor a block device");
        // It isn't known before the guest looks.
        let blank = image(h, "blank", "");
        create(blank.to_str().unwrap(), "vm").refused("has to hold an ext4 file system");
    });
}

#[test]
fn disks_are_made_and_prepared() {
    Harness::run(Isolation::Process, "make", |h| {
        let path = |name: &str| h.path(name).to_str().unwrap().to_owned();
        let create = |options: &[&str]| h.runhcs(&[&["create-scratch"], options].concat());
        let (one, two, cache) = (path("one"), path("two"), path("cache"));
        create(&["--destpath", &one, "--cache-path", &cache, "--sizeGB", "2"]).ok();
        // Whatever the size, the cached one is copied.
        create(&["--destpath", &two, "--cache-path", &cache, "--sizeGB", "9"]).ok();
        for image in [&one, &two, &cache] {
            assert_eq!(std::fs::metadata(image).unwrap().len(), 2 << 30);
            assert!(Command::new("e2fsck").args(["-fn", image]).status().unwrap().success());
        }
        create(&["--destpath", &one]).refused("exists already");
        create(&["--destpath", "/nonexistent/x"]).refused("/nonexistent/x");
        create(&["--destpath", &path("x"), "--sizeGB", "0"]).refused("0 is not in 1..");
        create(&[]).refused("--destpath");
        h.runhcs(&["prepare-disk", "--destpath", &one]).refused("holds ext4 already");
        h.runhcs(&["prepare-disk", "--force", "--destpath", &one]).ok();
        h.runhcs(&["prepare-disk", "--destpath", "/nonexistent"]).refused("/nonexistent");
        let blank = image(h, "blank", "");
        h.runhcs(&["prepare-disk", "--destpath", blank.to_str().unwrap()]).ok();
        let checked = Command::new("e2fsck").arg("-fn").arg(&blank).status().unwrap();
        assert!(checked.success());
    });
}
