//! What a test left: processes, mounts, control groups, sockets, state, temporary files, network
//! interfaces and namespaces.

use std::fs;
use std::time::{Duration, Instant};

use crate::{Harness, cgroups};

/// What is left. Processes that were killed may take a moment to be gone.
pub fn find(harness: &Harness) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left = look(harness);
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn look(harness: &Harness) -> Vec<String> {
    let mut left: Vec<String> = processes(harness)
        .into_iter()
        .map(|(pid, what)| format!("process {pid}: {what}"))
        .collect();
    let token = &harness.token;
    for (what, file) in [("mount", "/proc/self/mountinfo"), ("socket", "/proc/net/unix")] {
        let text = fs::read_to_string(file).unwrap();
        left.extend(text.lines().filter(|l| l.contains(token)).map(|l| format!("{what}: {l}")));
    }
    left.extend(cgroups::find(harness).iter().map(|path| format!("cgroup {}", path.display())));
    for entry in fs::read_dir(harness.root()).into_iter().flatten().flatten() {
        let internal = entry.file_name().to_string_lossy().starts_with('~');
        let empty = fs::read_dir(entry.path()).is_ok_and(|mut entries| entries.next().is_none());
        if !(internal && empty) {
            left.push(format!("state {}", entry.path().display()));
        }
    }
    for entry in fs::read_dir(harness.path("tmp")).into_iter().flatten().flatten() {
        left.push(format!("temporary file {}", entry.path().display()));
    }
    left.extend(taps().into_iter().map(|name| format!("tap interface {name}")));
    left.extend(namespaces().into_iter().map(|name| format!("named network namespace {name}")));
    left
}

/// Kills and removes what can be, so that a failed test doesn't disturb others.
pub fn clean(harness: &Harness) {
    for entry in fs::read_dir(harness.root()).into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if !id.starts_with('~') {
            let _ = harness.command(&["delete", "--force", &id]).output();
        }
    }
    for (pid, _) in processes(harness) {
        let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    }
    cgroups::remove(harness);
}

/// Processes that the test's commands started: they have its token in their environment or on
/// their command line. Those that have ended and wait for their parent don't count. Their mounts
/// must not be asked: a mount left on the host is in everybody's table, and these get killed.
fn processes(harness: &Harness) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if pid == std::process::id() {
            continue;
        }
        let read = |name: &str| {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let command = read("cmdline");
        let zombie = read("stat").rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'));
        let own = command.contains(&harness.token) || read("environ").contains(&harness.token);
        if !zombie && own {
            found.push((pid, command));
        }
    }
    found
}

/// The host's tap interfaces; a VM's are in its pod's namespace.
fn taps() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let taps = entries.filter(|entry| entry.path().join("tun_flags").exists());
    taps.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Named network namespaces; the tests make none.
fn namespaces() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("runhcs")).collect()
}
