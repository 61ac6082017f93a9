//! What a process may do: its ids, capabilities, limits and priorities, as the configuration says,
//! by what procfs shows of it.

use std::os::unix::fs::MetadataExt;

use runhcs_tests::config::{in_user_namespace, run_script};
use runhcs_tests::{Bundle, Harness, Isolation, in_both};
use serde_json::json;

/// Every kind of limit, its name in `/proc/self/limits` (proc_pid_limits(5)), and a value for soft
/// and hard. None is higher than a host without CAP_SYS_RESOURCE has it.
const LIMITS: [(&str, &str, u64, u64); 16] = [
    ("RLIMIT_AS", "Max address space", 1 << 33, 1 << 34),
    ("RLIMIT_CORE", "Max core file size", 1, 2),
    ("RLIMIT_CPU", "Max cpu time", 1001, 1002),
    ("RLIMIT_DATA", "Max data size", 1 << 31, 1 << 32),
    ("RLIMIT_FSIZE", "Max file size", 1 << 30, 1 << 31),
    ("RLIMIT_LOCKS", "Max file locks", 17, 18),
    ("RLIMIT_MEMLOCK", "Max locked memory", 4096, 8192),
    ("RLIMIT_MSGQUEUE", "Max msgqueue size", 1000, 2000),
    ("RLIMIT_NICE", "Max nice priority", 0, 0),
    ("RLIMIT_NOFILE", "Max open files", 99, 100),
    ("RLIMIT_NPROC", "Max processes", 500, 501),
    ("RLIMIT_RSS", "Max resident set", 1 << 29, 1 << 30),
    ("RLIMIT_RTPRIO", "Max realtime priority", 0, 0),
    ("RLIMIT_RTTIME", "Max realtime timeout", 3000, 4000),
    ("RLIMIT_SIGPENDING", "Max pending signals", 30, 40),
    ("RLIMIT_STACK", "Max stack size", 1 << 22, 1 << 23),
];

in_both!(every_limit_of_a_process_is_set, |h: &Harness| {
    // A guest's root may raise them, too.
    let raised = if h.isolation == Isolation::Vm { 7 } else { 0 };
    let value = |name: &str, value: u64| match name {
        "RLIMIT_NICE" | "RLIMIT_RTPRIO" => raised,
        _ => value,
    };
    let limits = LIMITS.map(|(name, _, soft, hard)| {
        json!({ "type": name, "soft": value(name, soft), "hard": value(name, hard) })
    });
    let bundle = Bundle::new(h, "box", &["sh", "-c", "cat /proc/self/limits; sleep 1000"]);
    let bundle = bundle.edit(|config| config["process"]["rlimits"] = json!(limits));
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    let check = |shown: &str| {
        for (name, title, soft, hard) in LIMITS {
            let line = shown.lines().find(|line| line.starts_with(title)).unwrap();
            let words: Vec<&str> = line[title.len()..].split_whitespace().collect();
            let expected = [value(name, soft).to_string(), value(name, hard).to_string()];
            assert_eq!(words[..2], expected, "{name}: {line}");
        }
    };
    check(&h.runhcs(&["exec", "box", "cat", "/proc/1/limits"]).ok().stdout);
    // A further process has the same.
    check(&h.runhcs(&["exec", "box", "cat", "/proc/self/limits"]).ok().stdout);
    h.runhcs(&["delete", "--force", "box"]).ok();
});

in_both!(each_set_of_capabilities_is_as_asked, |h: &Harness| {
    let script = "grep ^Cap /proc/self/status";
    let bit = |number: u32| 1_u64 << number;
    let (chown, kill, net_raw, chroot) = (bit(0), bit(5), bit(13), bit(18));
    let printed = run_script(h, script, |config| {
        config["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_CHROOT"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            "effective": ["CAP_CHOWN", "CAP_NET_RAW"],
            "inheritable": ["CAP_NET_RAW"],
            "ambient": ["CAP_NET_RAW"],
        });
        // Root's program would get all of the bounding set (capabilities(7)).
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    });
    let set = |name: &str| {
        let line = printed.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    assert_eq!(set("CapBnd"), chown | kill | net_raw | chroot, "{printed}");
    // Of an ordinary user's only the ambient ones outlive the execution of a program.
    for name in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(set(name), net_raw, "{name}: {printed}");
    }
    let printed = run_script(h, script, |config| {
        config["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN", "CAP_KILL"],
        });
    });
    for (name, expected) in [("CapBnd", 0x21), ("CapPrm", 0x21), ("CapEff", 0x21), ("CapInh", 0)] {
        let line = printed.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.ends_with(&format!("{expected:016x}")), "{printed}");
    }
    // None at all.
    let printed = run_script(h, script, |config| config["process"]["capabilities"] = json!({}));
    assert!(printed.lines().all(|line| line.ends_with("0000000000000000")), "{printed}");
});

in_both!(ids_and_groups_are_as_asked, |h: &Harness| {
    let script = "grep -E '^(Uid|Gid|Groups|Umask|NoNewPrivs):' /proc/self/status
        cat /proc/self/oom_score_adj; ionice";
    let printed = run_script(h, script, |config| {
        config["process"]["user"] = json!({ "uid": 7, "gid": 8, "additionalGids": [9, 10, 4_000_000_000_u32], "umask": 0o27 });
        config["process"]["oomScoreAdj"] = json!(345);
        config["process"]["noNewPrivileges"] = json!(true);
        config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 });
    });
    for line in [
        "Uid:\t7\t7\t7\t7",
        "Gid:\t8\t8\t8\t8",
        "Groups:\t9 10 4000000000 ",
        "Umask:\t0027",
        "NoNewPrivs:\t1",
        "345",
        "idle",
    ] {
        assert!(printed.lines().any(|found| found == line), "{line:?} in {printed}");
    }
    let printed = run_script(h, script, |config| {
        config["process"]["noNewPrivileges"] = json!(false);
        config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 0 });
    });
    for line in ["Uid:\t0\t0\t0\t0", "Groups:\t ", "Umask:\t0022", "NoNewPrivs:\t0"] {
        assert!(printed.lines().any(|found| found == line), "{line:?} in {printed}");
    }
    assert!(printed.ends_with("best-effort: prio 0\n"), "{printed}");
    // Real time needs a privilege that this host may lack.
    if h.isolation == Isolation::Vm {
        let printed = run_script(h, "ionice", |config| {
            config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_RT", "priority": 3 });
        });
        assert_eq!(printed, "realtime: prio 3\n");
    }
});

in_both!(a_user_namespace_may_forbid_groups_or_not_have_them, |h: &Harness| {
    let script = "grep -E '^(Groups):' /proc/self/status; cat /proc/self/setgroups";
    let printed = run_script(h, script, |config| {
        in_user_namespace(config, 0, 1000);
        config["process"]["user"] = json!({ "uid": 7, "gid": 8, "additionalGids": [9, 999] });
    });
    assert_eq!(printed, "Groups:\t9 999 \nallow\n");
    let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
        in_user_namespace(config, 0, 1000);
        config["process"]["user"]["additionalGids"] = json!([9, 1000]);
    });
    let outcome = h.new_container(&["create"], &bundle, "box");
    outcome.refused("process.user.additionalGids[1]: 1000 is not mapped");
});

// Who gets stdio that is another's can open it anew nonetheless.
in_both!(stdio_is_the_users_own, |h: &Harness| {
    let script = "echo out >/dev/stdout; echo error >/dev/stderr";
    let owner = |path: &str| std::fs::metadata(path).unwrap().uid();
    let before = owner("/dev/null");
    let user = |config: &mut serde_json::Value| {
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    };
    let bundle = Bundle::new(h, "first", &["sh", "-c", script]).edit(user);
    let run = h.new_container(&["run"], &bundle, "first").ok();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "error\n"));
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    let exec = h.runhcs(&["exec", "--user", "1000:1000", "box", "sh", "-c", script]).ok();
    assert_eq!((exec.stdout.as_str(), exec.stderr.as_str()), ("out\n", "error\n"));
    // The null device, which is standard input here, is everybody's.
    assert_eq!(owner("/dev/null"), before);
    h.runhcs(&["delete", "--force", "box"]).ok();
});
