//! What stays of the old root under the new one when pivot_root(2) can't be used.
//!
//! Nobody sees it, but the kernel counts it: as long as a whole procfs or sysfs is mounted anywhere
//! in its mount namespace, a process with a new user namespace may mount another one, without the
//! container's masks (mount_namespaces(7), "Restrictions on mount namespaces").

use std::path::Path;

use runhcs_compute::Result;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::mount_table::MountTable;
use crate::error::Context;

/// Takes all mounts of procfs and sysfs away, but those at and below `new_root`, whose path has no
/// links. The caller is in a mount namespace of its own.
pub(super) fn remove_kernel_mounts(new_root: &Path) -> Result<()> {
    let table = MountTable::read().context(|| "read the mount table".into())?;
    // The last one mounted at a place is the one that is seen there.
    for mount in table.0.iter().rev() {
        let kernels = matches!(mount.file_system.as_str(), "proc" | "sysfs");
        if !kernels || Path::new(&mount.point).starts_with(new_root) {
            continue;
        }
        remove(&mount.point).context(|| format!("take {} away", mount.point))?;
    }
    Ok(())
}

fn remove(point: &str) -> rustix::io::Result<()> {
    // The host's own must stay.
    let removed = rustix::mount::mount_change(point, MountPropagationFlags::PRIVATE)
        .and_then(|()| rustix::mount::unmount(point, UnmountFlags::DETACH));
    match removed {
        // It went with one that it was mounted on, or is covered by another.
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        // A user namespace's mounts that came with others can't be taken away, but covered.
        Err(Errno::INVAL | Errno::PERM) => {
            rustix::mount::mount("none", point, "tmpfs", MountFlags::RDONLY, None)
        }
        other => other,
    }
}
