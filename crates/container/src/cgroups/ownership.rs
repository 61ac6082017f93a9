//! On version 2, a container that has a cgroup namespace and the hierarchy mounted writable manages
//! groups of its own below its root. So its user becomes the owner of what the kernel says is to be
//! delegated (config-linux.md, "Cgroup ownership").

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::Path;

use runhcs_compute::Result;

use crate::error::Context;

/// The kernel's list (cgroup-v2.rst, "Delegation"), one name a line.
const LIST: &str = "/sys/kernel/cgroup/delegate";

/// What kernels before 4.15 delegate, which have no list.
const WITHOUT_LIST: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads";

/// Gives the group to `uid`, one of the host's.
pub(super) fn give(group: &Path, uid: u32) -> Result<()> {
    let names = fs::read_to_string(LIST).unwrap_or_else(|_| WITHOUT_LIST.to_owned());
    let what = |path: &Path| format!("give {} to user {uid}", path.display());
    chown(group, Some(uid), None).context(|| what(group))?;
    for name in names.lines() {
        let file = group.join(name);
        match chown(&file, Some(uid), None) {
            // A controller that isn't enabled has no files.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context(|| what(&file));
            }
            _ => {}
        }
    }
    Ok(())
}
