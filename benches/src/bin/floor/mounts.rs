//! The mounts, devices and masks of `runhcs spec`. Paths are the image's, which is the benchmark's own:
//! nothing is checked.

use std::ffi::CString;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat, symlinkat};
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};

use crate::groups::Groups;

const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC).union(MountFlags::NODEV);

const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];

const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Mounts what has no need of control groups; the working directory is the root.
pub fn file_systems() -> Result<()> {
    let make = |at: &str, kind: &str, flags, options: &str| -> Result<()> {
        let what = || format!("mount {at}");
        std::fs::create_dir_all(at).with_context(what)?;
        mount(kind, at, kind, flags, CString::new(options)?.as_c_str()).with_context(what)
    };
    make("proc", "proc", MountFlags::empty(), "")?;
    let dev = MountFlags::NOSUID | MountFlags::STRICTATIME;
    make("dev", "tmpfs", dev, "mode=755,size=65536k")?;
    let pts = MountFlags::NOSUID | MountFlags::NOEXEC;
    make("dev/pts", "devpts", pts, "newinstance,ptmxmode=0666,mode=0620,gid=5")?;
    make("dev/shm", "tmpfs", PLAIN, "mode=1777,size=65536k")?;
    make("dev/mqueue", "mqueue", PLAIN, "")?;
    make("sys", "sysfs", PLAIN | MountFlags::RDONLY, "")
}

/// Mounts the container's groups.
pub fn groups(groups: &Groups) -> Result<()> {
    let top = Path::new("sys/fs/cgroup");
    mount("tmpfs", top, "tmpfs", PLAIN, c"mode=755").context("mount a tmpfs for the groups")?;
    for group in groups.iter() {
        let at = top.join(&group.name);
        std::fs::create_dir(&at)?;
        mount_bind(&group.path, &at).with_context(|| format!("mount {}", at.display()))?;
        read_only(&at, PLAIN)?;
    }
    read_only(top, PLAIN)
}

/// Makes the devices (runtime specification, "Default Devices") and the usual links.
pub fn devices() -> Result<()> {
    let umask = rustix::process::umask(Mode::empty());
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        let (path, mode) = (Path::new("dev").join(name), Mode::from_raw_mode(0o666));
        mknodat(CWD, path, FileType::CharacterDevice, mode, makedev(major, minor))
            .with_context(|| format!("make /dev/{name}"))?;
    }
    rustix::process::umask(umask);
    for (target, link) in [
        ("pts/ptmx", "dev/ptmx"),
        ("/proc/self/fd", "dev/fd"),
        ("/proc/self/fd/0", "dev/stdin"),
        ("/proc/self/fd/1", "dev/stdout"),
        ("/proc/self/fd/2", "dev/stderr"),
    ] {
        symlinkat(target, CWD, link).with_context(|| format!("link {link}"))?;
    }
    Ok(())
}

/// Masks paths and makes others, and the root, read-only; the caller is in the root.
pub fn protect() -> Result<()> {
    for path in MASKED {
        let what = || format!("mask {path}");
        let Ok(about) = std::fs::metadata(path) else { continue };
        if about.is_dir() {
            mount("tmpfs", path, "tmpfs", MountFlags::RDONLY, c"nr_inodes=1,mode=555")
                .with_context(what)?;
        } else {
            mount_bind("/dev/null", path).with_context(what)?;
        }
    }
    for path in READ_ONLY {
        if Path::new(path).exists() {
            mount_bind(path, path).with_context(|| format!("mount {path}"))?;
            read_only(Path::new(path), MountFlags::empty())?;
        }
    }
    read_only(Path::new("/"), MountFlags::empty())
}

/// Changes a mount, which keeps `others` of its flags.
fn read_only(path: &Path, others: MountFlags) -> Result<()> {
    mount_remount(path, MountFlags::BIND | MountFlags::RDONLY | others, c"")
        .with_context(|| format!("make {} read-only", path.display()))
}
