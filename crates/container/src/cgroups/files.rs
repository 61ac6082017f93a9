//! Reading and writing the control files, whichever the version.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use runhcs_compute::Result;
use rustix::fs::{Mode, OFlags};

use crate::error::{Context, invalid};

/// `path` in a hierarchy: absolute below its root, relative below the caller's own group.
pub(crate) fn below(mount_point: &Path, own: &Path, path: &Path) -> PathBuf {
    let strip = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    if path.is_absolute() {
        mount_point.join(strip(path))
    } else {
        mount_point.join(strip(own)).join(path)
    }
}

pub(crate) fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a group for a process to be cloned into.
pub(crate) fn open_group(path: &Path) -> Result<OwnedFd> {
    open_directory(path).context(|| format!("open cgroup {}", path.display()))
}

/// Makes a group, and those above it. Fine if it is there.
pub(crate) fn make_group(path: &Path) -> Result<()> {
    fs::create_dir_all(path).context(|| format!("make cgroup {}", path.display()))
}

pub(crate) fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).context(|| format!("write {value:?} to {}", path.display()))
}

/// Writes to a control file that must exist already: `NotFound` if it doesn't, where making it
/// would be refused as a lack of permission.
pub(crate) fn write_existing(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Refuses a memory limit that is below what is in use: the kernel would kill rather than refuse
/// (`linux.resources.memory.checkBeforeUpdate`).
pub(crate) fn check_usage(path: &Path, limit: u64) -> Result<()> {
    let text = fs::read_to_string(path).context(|| format!("read {}", path.display()))?;
    match text.trim().parse::<u64>() {
        Ok(usage) if usage > limit => Err(invalid(
            "linux.resources.memory.limit",
            format!("{limit} is below the {usage} bytes in use, and checkBeforeUpdate is set"),
        )),
        _ => Ok(()),
    }
}

/// The pids in a `cgroup.procs`; none if the group is gone.
pub(crate) fn read_pids(path: &Path) -> io::Result<Vec<u32>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect())
        }
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Calls `visit` for a group and all below, deepest first. A group that is gone is skipped.
pub(crate) fn for_each_group(
    path: &Path,
    visit: &mut impl FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if is_gone(&error) => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            for_each_group(&entry.path(), visit)?;
        }
    }
    visit(path)
}

/// Removes a group and all below. The kernel may need a moment after the last process has ended.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    // Few have groups below, and asking for them costs more than trying.
    if matches!(remove(path), Ok(true)) {
        return Ok(());
    }
    for_each_group(path, &mut |group| super::wait_until(|| remove(group)))
}

/// Removes a group that has none below; false if it is in use.
fn remove(group: &Path) -> io::Result<bool> {
    match fs::remove_dir(group) {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_start_at_the_hierarchy_and_relative_ones_at_the_caller() {
        let below =
            |path: &str| below(Path::new("/sys/fs/cgroup"), Path::new("/own"), Path::new(path));
        assert_eq!(below("/a/b"), Path::new("/sys/fs/cgroup/a/b"));
        assert_eq!(below("a/b"), Path::new("/sys/fs/cgroup/own/a/b"));
    }
}
