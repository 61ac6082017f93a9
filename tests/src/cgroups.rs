//! The control groups of a test, in the hierarchies that this host has mounted and in others.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Harness;

/// Control groups below the test's own name, in every mounted hierarchy.
pub fn find(harness: &Harness) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let own = hierarchy.join("runhcs-e2e").join(&harness.token);
        found.extend(below(&own));
        // The parents were made on the way to the container's group, and are the test's.
        let _ = fs::remove_dir(&own);
        let _ = fs::remove_dir(hierarchy.join("runhcs-e2e"));
    }
    found
}

/// Removes those that [`find`] finds and that have no processes.
pub fn remove(harness: &Harness) {
    find(harness).iter().for_each(|group| remove_tree(group));
    find(harness);
}

/// Ends the hierarchies of version 1 that a container of the test mounted for itself. They last,
/// seen by everyone in `/proc/PID/cgroup` and mounted by nobody, as long as they have groups.
pub fn end_unmounted(harness: &Harness) {
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounted: Vec<&str> =
        mounted.lines().filter_map(|line| line.split_once(" - cgroup ")).map(|(_, o)| o).collect();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    for controllers in groups.lines().filter_map(|line| line.split(':').nth(1)) {
        let first = controllers.split(',').next().unwrap();
        let is = |options: &&&str| options.split([',', ' ']).any(|option| option == first);
        if first.is_empty() || mounted.iter().any(|options| is(&options)) {
            continue;
        }
        let at = harness.path("hierarchy");
        fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "cgroup", "-o", controllers, "cgroup"]).arg(&at);
        if mount.status().unwrap().success() {
            remove_tree(&at.join("runhcs-e2e").join(&harness.token));
            let _ = fs::remove_dir(at.join("runhcs-e2e"));
            assert!(Command::new("umount").arg(&at).status().unwrap().success());
        }
    }
}

fn below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn remove_tree(group: &Path) {
    below(group).iter().for_each(|path| remove_tree(path));
    let _ = fs::remove_dir(group);
}
