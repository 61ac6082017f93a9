//! What a test left: processes, systems, layers, disks, shares in a namespace, state, temporary
//! files. Named pipes aren't looked for: they go with the processes that have them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Wine, prefix};

/// What is left. Processes that were ended may take a moment to be gone.
pub fn find(wine: &Wine) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = look(wine);
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn look(wine: &Wine) -> Vec<String> {
    let mut left: Vec<String> =
        processes(wine).into_iter().map(|(pid, line)| format!("process {pid}: {line}")).collect();
    match wine.sim.snapshot() {
        Ok(snapshot) => {
            left.extend(snapshot.systems.iter().map(|system| format!("{system:?}")));
            left.extend(snapshot.layers.iter().map(|layer| format!("attached layer {layer}")));
            left.extend(snapshot.disks.iter().map(|disk| format!("attached disk {disk}")));
            for namespace in snapshot.namespaces {
                let resources = namespace["Resources"].as_array().cloned().unwrap_or_default();
                let containers = resources.into_iter().filter(|r| r["Type"] == "Container");
                left.extend(containers.map(|r| format!("in a namespace: {r}")));
            }
        }
        Err(error) => left.push(format!("the stand-in doesn't answer: {error}")),
    }
    for entry in fs::read_dir(wine.path("tmp")).into_iter().flatten().flatten() {
        left.push(format!("temporary file {}", entry.path().display()));
    }
    // Asking Wine takes a while, so it is asked only when all else is gone.
    if left.is_empty() {
        left.extend(keys(wine).into_iter().map(|key| format!("registry key {key}")));
    }
    left
}

/// Kills what can be killed, so that a failed test doesn't disturb others.
pub fn clean(wine: &Wine) {
    for (pid, _) in processes(wine) {
        let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    }
    let _ = registry(&["delete", &root(wine), "/f"]);
}

/// Processes that the test's commands started: they have its token in their environment. Wine's own
/// that it starts on the way don't count.
pub fn processes(wine: &Wine) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let read = |name: &str| {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let zombie = read("stat").rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'));
        if pid == std::process::id() || zombie || !read("environ").contains(&wine.token) {
            continue;
        }
        let line = read("cmdline");
        let own = ["explorer.exe", "services.exe", "conhost.exe", "rpcss.exe", "svchost.exe"];
        if !own.iter().any(|name| line.contains(name)) {
            found.push((pid, line));
        }
    }
    found
}

fn root(wine: &Wine) -> String {
    format!(r"HKLM\{}", wine.registry_root())
}

/// The keys of the test's entries.
fn keys(wine: &Wine) -> Vec<String> {
    let output = registry(&["query", &root(wine)]);
    let mut keys: Vec<String> = output
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("HKEY_"))
        .filter(|line| !line.ends_with(&wine.token))
        .map(str::to_owned)
        .collect();
    // The store's own keys stay, and are empty.
    keys.retain(|key| {
        let own = key.rsplit_once('\\').is_some_and(|(_, name)| name.starts_with('~'));
        !own || registry(&["query", key, "/s"]).lines().any(|line| line.contains("REG_"))
    });
    keys
}

/// Runs Wine's `reg` outside of the test, so that it isn't one of its processes.
pub fn registry(arguments: &[&str]) -> String {
    let output = prefix::wine(Path::new("reg")).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
