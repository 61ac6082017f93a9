//! What a container's processes could get hold of while the runtime works among them: the host's
//! root, descriptors, keys, privilege that a filter was to take away.

use std::path::Path;
use std::process::Command;

use runhcs_tests::{Bundle, Harness, Isolation};
use serde_json::{Value, json};

fn process(name: &str, body: impl FnOnce(&Harness)) {
    Harness::run(Isolation::Process, name, body);
}

/// The harness' command with something else before it, such as `sh -c '… exec "$@"' -`.
fn behind(h: &Harness, before: &[&str], arguments: &[&str]) -> Command {
    let original = h.command(arguments);
    let mut command = Command::new(before[0]);
    command.args(&before[1..]).arg(original.get_program()).args(original.get_args());
    for (name, value) in original.get_envs() {
        command.env(name, value.unwrap());
    }
    command
}

/// CVE-2016-9962 and CVE-2024-21626 with CAP_SYS_PTRACE: a process that enters the container is
/// looked at while it may still have the host's root and descriptors.
#[test]
fn an_entering_process_has_left_the_host() {
    process("entering", |h| {
        let secret = h.path("secret");
        std::fs::write(&secret, "secret\n").unwrap();
        // Pids are given in order; `test` is built in, so each look takes a microsecond or two.
        let script = format!(
            "echo > /ready
            while test ! -e /stop; do
                for pid in 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
                    test -e /proc/$pid/root{secret} && echo root >> /found
                    test -e /proc/$pid/cwd/secret && echo cwd >> /found
                    for fd in 3 4 5 6 7 8 9; do
                        test -e /proc/$pid/fd/$fd/record.json && echo $fd >> /found
                    done
                done
            done",
            secret = secret.display()
        );
        let bundle = Bundle::new(h, "box", &["sh", "-c", &script]).edit(|config| {
            for set in ["bounding", "effective", "permitted"] {
                let set = &mut config["process"]["capabilities"][set];
                set.as_array_mut().unwrap().push(json!("CAP_SYS_PTRACE"));
            }
        });
        let root = bundle.path().join("rootfs");
        h.new_container(&["run", "--detach"], &bundle, "box").ok();
        runhcs_tests::eventually(|| root.join("ready").exists(), || "it does not run".into());
        for _ in 0..20 {
            let mut exec = h.command(&["exec", "box", "true"]);
            exec.current_dir(secret.parent().unwrap());
            let exec = h.finish(exec);
            assert_eq!(exec.code, 0, "{exec:?}");
        }
        std::fs::write(root.join("stop"), "").unwrap();
        h.wait_status("box", "stopped");
        let found = std::fs::read_to_string(root.join("found")).unwrap_or_default();
        assert_eq!(found, "");
        h.runhcs(&["delete", "box"]).ok();
    });
}

/// CVE-2024-21626 by descriptors that the runtime's caller left open.
#[test]
fn descriptors_of_the_caller_do_not_leak() {
    process("callers descriptors", |h| {
        let open = ["sh", "-c", "exec 7</ 9</etc; exec \"$@\"", "-"];
        // A pipe would be a descriptor of the shell's for a moment.
        let list = "ls /proc/self/fd; ls /proc/1/fd; true";
        let bundle = Bundle::new(h, "box", &["sh", "-c", list]).edit(|config| {
            // In the container, by the image's programs.
            config["hooks"] = json!({"startContainer": [{
                "path": "/bin/sh",
                "args": ["sh", "-c", "exec > /hook; ls /proc/self/fd; cat /proc/self/cwd/etc/hostname; true"],
                "env": ["PATH=/bin"]
            }]});
        });
        let path = bundle.path().to_str().unwrap();
        let run = h.finish(behind(h, &open, &["run", "--bundle", path, "box"]));
        // The shell keeps one of its own at 10.
        let listed = run.stdout.replace("10\n", "");
        assert_eq!((run.code, listed.as_str()), (0, "0\n1\n2\n3\n0\n1\n2\n"), "{run:?}");
        let hook = std::fs::read_to_string(bundle.path().join("rootfs/hook")).unwrap();
        assert_eq!(hook, "0\n1\n2\n3\n");
        let sleeper = Bundle::new(h, "sleeper", &["sleep", "1000"]);
        h.new_container(&["run", "--detach"], &sleeper, "sleeper").ok();
        let exec = behind(h, &open, &["exec", "sleeper", "ls", "/proc/self/fd"]);
        let exec = h.finish(exec);
        assert_eq!((exec.code, exec.stdout.as_str()), (0, "0\n1\n2\n3\n"), "{exec:?}");
        let cwd = ["exec", "--cwd", "/proc/self/fd/7", "sleeper", "ls"];
        let exec = h.finish(behind(h, &open, &cwd));
        assert!(exec.code != 0 && exec.stdout.is_empty(), "{exec:?}");
        h.runhcs(&["delete", "--force", "sleeper"]).ok();
    });
}

/// Keys are in no namespace: the caller's session keyring must not become the container's.
#[test]
fn keys_of_the_caller_are_out_of_reach() {
    process("keys", |h| {
        let add = format!("keyctl add user {} x @s >/dev/null && exec \"$@\"", h.token);
        let with_key = ["keyctl", "session", "-", "sh", "-c", &add, "-"];
        // Who possesses a key finds it (keyrings(7)); its number is nothing to go by.
        let search = ["keyctl", "search", "@s", "user", &h.token];
        let bundle = Bundle::new(h, "box", &search)
            .with_copy(Path::new("/usr/bin/keyctl"), Path::new("/bin/keyctl"));
        let path = bundle.path().to_str().unwrap();
        let run = h.finish(behind(h, &with_key, &["run", "--bundle", path, "box"]));
        assert!(run.code == 1 && run.stderr.contains("Required key not available"), "{run:?}");
        // The proof that there was something to find.
        let open = ["run", "--no-new-keyring", "--bundle", path, "box"];
        let run = h.finish(behind(h, &with_key, &open));
        assert!(run.code == 0 && run.stdout.trim().parse::<u32>().is_ok(), "{run:?}");
        let sleeper = Bundle::with_root(h, bundle.path().to_owned(), &["sleep", "1000"]);
        h.new_container(&["run", "--detach"], &sleeper, "box").ok();
        let exec = h.finish(behind(h, &with_key, &[&["exec", "box"], &search[..]].concat()));
        assert!(exec.code == 1 && exec.stderr.contains("Required key not available"), "{exec:?}");
        h.runhcs(&["delete", "--force", "box"]).ok();
    });
}

/// A filter that refuses calls with EPERM.
fn filter(config: &mut Value, calls: &[&str]) {
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": calls, "action": "SCMP_ACT_ERRNO"}]
    });
}

/// With `noNewPrivileges` the filter comes last, so that it may refuse all that becoming another
/// user takes; without it, it is loaded while that still takes no `no_new_privs`.
#[test]
fn the_filter_is_loaded_when_it_can_be() {
    process("filter", |h| {
        let script = "id -u; mkdir /tmp/x; grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status";
        let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
            config["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [7]});
        });
        let credentials = ["setgroups", "setresuid", "setresgid", "capset", "prctl", "mkdir"];
        let bundle = bundle.edit(|config| filter(config, &credentials));
        let run = h.new_container(&["run"], &bundle, "box").ok();
        assert_eq!(run.stdout, "1000\nNoNewPrivs:\t1\nSeccomp:\t2\n", "{run:?}");
        assert!(run.stderr.contains("Operation not permitted"), "{run:?}");
        let bundle = bundle.edit(|config| {
            config["process"]["noNewPrivileges"] = json!(false);
            filter(config, &["mkdir"]);
        });
        let run = h.new_container(&["run"], &bundle, "box").ok();
        assert_eq!(run.stdout, "1000\nNoNewPrivs:\t0\nSeccomp:\t2\n", "{run:?}");
        assert!(run.stderr.contains("Operation not permitted"), "{run:?}");
    });
}

/// Hooks in the container are programs of the image, so the filter is theirs too.
#[test]
fn hooks_in_the_container_are_filtered() {
    process("filtered hooks", |h| {
        let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
            filter(config, &["mkdir"]);
            config["hooks"] = json!({"startContainer": [{
                "path": "/bin/sh",
                "args": ["sh", "-c", "mkdir /made; grep -E '^Seccomp:' /proc/self/status > /hook"],
                "env": ["PATH=/bin"]
            }]});
        });
        h.new_container(&["run"], &bundle, "box").ok();
        let root = bundle.path().join("rootfs");
        assert_eq!(std::fs::read_to_string(root.join("hook")).unwrap(), "Seccomp:\t2\n");
        assert!(!root.join("made").exists());
    });
}

/// CVE-2022-29162 and its kin, for further processes: nothing of the caller's is left.
#[test]
fn a_further_process_has_nothing_of_the_callers() {
    process("further process", |h| {
        let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
        h.new_container(&["run", "--detach"], &bundle, "box").ok();
        let caller = ["setpriv", "--groups", "4,5,6", "--inh-caps", "+net_raw,+sys_admin"];
        let script = "grep -E '^(CapInh|CapAmb|Groups|NoNewPrivs):' /proc/self/status; env";
        let mut exec = behind(h, &caller, &["exec", "box", "sh", "-c", script]);
        exec.env("SECRET_OF_THE_CALLER", "x");
        let exec = h.finish(exec);
        assert_eq!(exec.code, 0, "{exec:?}");
        for line in ["CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(exec.stdout.contains(line), "{line}: {exec:?}");
        }
        assert!(exec.stdout.lines().any(|line| line.trim() == "Groups:"), "{exec:?}");
        assert!(!exec.stdout.contains("SECRET") && !exec.stdout.contains("RUNHCS"), "{exec:?}");
        h.runhcs(&["delete", "--force", "box"]).ok();
    });
}
