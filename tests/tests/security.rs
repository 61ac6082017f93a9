//! Known attacks on container runtimes, each tried from within a container.

use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use runhcs_tests::{Bundle, Harness, Isolation, eventually, in_both};
use serde_json::json;

/// CVE-2019-5736: a container has the runtime executed in it, keeps its file open, and overwrites
/// the host's runtime once nobody executes it any more.
fn the_runtimes_own_program_is_out_of_reach(h: &Harness) {
    // If the attack succeeds, this is what it hits.
    let copy = h.path("runhcs-copy");
    let copied = std::process::Command::new("cp").arg(h.program()).arg(&copy).status();
    assert!(copied.unwrap().success());
    let before = std::fs::read(&copy).unwrap();
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    // A dynamic program brings its libraries along.
    let libraries = std::process::Command::new("ldd").arg(&copy).output().unwrap().stdout;
    let libraries = String::from_utf8(libraries).unwrap();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = bundle.path().join("rootfs").join(&library[1..]);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(library, to).unwrap();
    }
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    // Waits for its standard input, for as long as it is needed.
    let line = ["exec", "box", "/proc/self/exe", "update", "--resources", "-", "box"];
    let mut victim = std::process::Command::new(&copy);
    victim.args(h.command(&line).get_args()).env("RUNHCS_E2E", &h.token);
    let mut victim = victim.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // Not to be found in this script's own command line.
    let find = "w=resources; for p in /proc/[0-9]*; do
                case \"$(tr '\\0' ' ' < $p/cmdline)\" in
                    *\" --$w - box \"*) echo $p;;
                esac
            done";
    let mut process = String::new();
    eventually(
        || {
            process = h.runhcs(&["exec", "box", "sh", "-c", find]).stdout.trim().to_owned();
            !process.is_empty()
        },
        || format!("it was not executed: {:?}", victim.try_wait()),
    );
    // Opened while it runs, written when it has ended.
    let attack = format!(
        "exec 3< {process}/exe || exit 7
            kill -9 {pid}; while test -e {process}/exe; do sleep 0.1; done
            echo overwritten > /proc/self/fd/3",
        pid = process.trim_start_matches("/proc/")
    );
    let outcome = h.runhcs(&["exec", "box", "sh", "-c", &attack]);
    victim.wait().unwrap();
    assert_ne!(outcome.code, 7, "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    assert!(std::fs::read(&copy).unwrap() == before, "the runtime was overwritten");
    h.runhcs(&["delete", "--force", "box"]).ok();
}

/// The same, seen from the host: what a container's processes execute before their own program is
/// on a mount that nothing can be written through, even when nobody executes it any more.
/// It is executed again only if that is said.
fn what_is_executed_in_a_container_is_read_only(h: &Harness, again: bool) {
    let bundle = sleeping(h, "box");
    h.new_container(&["create"], &bundle, "box").ok();
    let pid = h.state("box")["pid"].as_i64().unwrap();
    let executed = std::fs::File::open(format!("/proc/{pid}/exe")).unwrap();
    let flags = rustix::fs::fstatvfs(&executed).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{flags:?}");
    // It is the runtime's own file, not a copy.
    let (executed, own) = (executed.metadata().unwrap(), h.program().metadata().unwrap());
    assert_eq!((executed.dev(), executed.ino()), (own.dev(), own.ino()));
    // A static program has told the kernel anew where these are (`replace.rs`).
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    assert!(read("cmdline").ends_with("\0box\0"), "{:?}", read("cmdline"));
    assert!(read("environ").contains(&format!("RUNHCS_E2E={}\0", h.token)));
    assert_eq!(read("environ").contains("RUNHCS_OWN_PROGRAM="), again);
    h.runhcs(&["delete", "--force", "box"]).ok();
}

#[test]
fn the_runtimes_own_program_is_safe() {
    Harness::run(Isolation::Process, "own program", the_runtimes_own_program_is_out_of_reach);
    Harness::run(Isolation::Process, "executed", |h| {
        what_is_executed_in_a_container_is_read_only(h, true);
    });
}

#[test]
fn the_static_program_is_safe() {
    let process = Isolation::Process;
    Harness::run_static(process, "static program", the_runtimes_own_program_is_out_of_reach);
    Harness::run_static(process, "static executed", |h| {
        what_is_executed_in_a_container_is_read_only(h, false);
    });
}

// It finds itself again: a VM's containers have shims.
#[test]
fn the_static_program_starts_vms() {
    Harness::run_static(Isolation::Vm, "static program and VM", |h| {
        let bundle = Bundle::new(h, "box", &["echo", "here"]);
        assert_eq!(h.new_container(&["run"], &bundle, "box").ok().stdout, "here\n");
    });
}

// CVE-2024-21626: a working directory that leads out of the container through a descriptor which
// the runtime left open.
in_both!(no_descriptor_leads_to_the_host, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sh", "-c", "ls /proc/self/fd"]);
    let run = h.new_container(&["run"], &bundle, "box").ok();
    // The three of stdio, and the directory that `ls` reads.
    assert_eq!(run.stdout, "0\n1\n2\n3\n");
    h.new_container(&["run", "--detach"], &sleeping(h, "sleeper"), "sleeper").ok();
    let exec = h.runhcs(&["exec", "sleeper", "ls", "/proc/self/fd"]).ok();
    assert_eq!(exec.stdout, "0\n1\n2\n3\n");
    for number in 3..24 {
        let directory = format!("/proc/self/fd/{number}");
        let exec = ["exec", "--cwd", &directory, "sleeper", "ls", "../../../etc/hostname"];
        let exec = h.runhcs(&exec);
        assert!(exec.code != 0 && exec.stdout.is_empty(), "{exec:?}");
        // Each of these is a VM that boots.
        if h.isolation == Isolation::Vm && number % 7 != 3 {
            continue;
        }
        let path = directory.clone();
        let bundle = bundle_again(bundle.path(), h).edit(|config| {
            config["process"]["cwd"] = json!(path);
            config["process"]["args"] = json!(["ls", "../../../etc/hostname"]);
        });
        let run = h.new_container(&["run"], &bundle, "box");
        assert!(run.code != 0 && run.stdout.is_empty(), "{run:?}");
    }
    h.runhcs(&["delete", "--force", "sleeper"]).ok();
});

fn sleeping(h: &Harness, name: &str) -> Bundle {
    Bundle::new(h, name, &["sleep", "1000"])
}

fn bundle_again(path: &std::path::Path, h: &Harness) -> Bundle {
    Bundle::with_root(h, path.to_owned(), &["true"])
}

// CVE-2021-30465 and CVE-2023-27561: a mount's target that is a symbolic link of the image's,
// leading to the host or to `/proc`.
in_both!(links_of_the_image_do_not_redirect_mounts, |h: &Harness| {
    let outside = h.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let volume = h.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("mark"), "mounted\n").unwrap();
    let up = format!("{}{}", "../".repeat(20), &outside.to_str().unwrap()[1..]);
    for (index, link) in [outside.to_str().unwrap(), &up].into_iter().enumerate() {
        let name = format!("box{index}");
        let bundle = Bundle::new(h, &name, &["sh", "-c", "cat /vol/mark"]).edit(|config| {
            config["mounts"].as_array_mut().unwrap().push(json!({
                "source": volume, "destination": "/vol", "type": "bind", "options": ["rbind"]
            }));
        });
        std::os::unix::fs::symlink(link, bundle.path().join("rootfs/vol")).unwrap();
        let run = h.new_container(&["run"], &bundle, &name).ok();
        // It was resolved within the root, where it leads to a directory of the same name.
        assert_eq!(run.stdout, "mounted\n");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }
    // A root whose /proc is a link, so that what is written to procfs would go elsewhere.
    let bundle = Bundle::new(h, "box", &["true"]);
    let proc = bundle.path().join("rootfs/proc");
    std::fs::remove_dir(&proc).unwrap();
    std::os::unix::fs::symlink("/tmp", &proc).unwrap();
    let run = h.new_container(&["run"], &bundle, "box");
    assert!(run.code == 0 || run.stderr.contains("proc"), "{run:?}");
    let host_tmp = bundle.path().join("rootfs/tmp");
    assert_eq!(std::fs::read_dir(host_tmp).unwrap().count(), 0);
});

// CVE-2025-31133 and CVE-2025-52565: `/dev/null`, which hides masked files, and `/dev/console`
// replaced by the image.
in_both!(devices_of_the_image_are_not_trusted, |h: &Harness| {
    let victim = h.path("victim");
    std::fs::write(&victim, "secret\n").unwrap();
    let script =
        "cat /proc/kcore | head -c 1 | wc -c; cat /masked; echo x > /dev/null; ls -l /dev/null";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        config["linux"]["maskedPaths"] = json!(["/proc/kcore", "/masked"]);
    });
    let root = bundle.path().join("rootfs");
    std::fs::write(root.join("masked"), "unmasked\n").unwrap();
    for name in ["null", "console", "ptmx", "pts", "shm"] {
        std::os::unix::fs::symlink(&victim, root.join("dev").join(name)).unwrap();
    }
    let run = h.new_container(&["run"], &bundle, "box").ok();
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[0], "0", "kcore is readable: {run:?}");
    assert!(!run.stdout.contains("unmasked") && !run.stdout.contains("secret"), "{run:?}");
    assert!(run.stdout.contains("crw"), "{run:?}");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "secret\n");
});

// CVE-2022-29162, and what else a process could be left with: inheritable capabilities, groups and
// variables of whoever started the runtime.
in_both!(nothing_of_the_callers_is_left, |h: &Harness| {
    let script = "grep -E '^(Cap|Groups|NoNewPrivs)' /proc/self/status; env";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]);
    let [flag, isolation] = h.flag();
    let path = bundle.path().to_str().unwrap();
    let line = ["run", flag, isolation, "--bundle", path, "box"];
    let mut command = std::process::Command::new("setpriv");
    command.args(["--groups", "4,5,6", "--inh-caps", "+net_raw,+sys_admin"]);
    let original = h.command(&line);
    command.arg(original.get_program()).args(original.get_args());
    for (name, value) in original.get_envs() {
        command.env(name, value.unwrap());
    }
    command.env("SECRET_OF_THE_CALLER", "x");
    let run = h.finish(command);
    assert_eq!(run.code, 0, "{run:?}");
    let field = |name: &str| {
        let line = run.stdout.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("CapAmb:"), "0000000000000000");
    assert_eq!(field("Groups:"), "");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert!(!run.stdout.contains("SECRET") && !run.stdout.contains("RUNHCS"), "{run:?}");
});
