//! The device nodes every container has, those its configuration adds, and the usual links.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};
use runhcs_compute::{Error, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;

use super::mounts::{clone_tree, move_to};
use super::options::Bind;
use super::resolve::Root;
use crate::error::{Context, invalid};

/// Device nodes that the specification promises ("Default Devices"); all character devices.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links that the specification promises ("Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// One device node to make.
#[derive(Debug)]
pub(crate) struct Device {
    path: PathBuf,
    kind: FileType,
    major: u32,
    minor: u32,
    mode: Mode,
    owner: (u32, u32),
}

/// The nodes for a container; empty if its configuration brings a `/dev` of the host.
pub(crate) fn plan(spec: &Spec) -> Result<Vec<Device>> {
    let mut devices: Vec<Device> = DEFAULTS
        .iter()
        .map(|(path, major, minor)| Device {
            path: PathBuf::from(path),
            kind: FileType::CharacterDevice,
            major: *major,
            minor: *minor,
            mode: Mode::from_raw_mode(0o666),
            owner: (0, 0),
        })
        .collect();
    let listed = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    for (index, device) in listed.into_iter().flatten().enumerate() {
        let device = from_spec(index, device)?;
        devices.retain(|other| other.path != device.path);
        devices.push(device);
    }
    Ok(devices)
}

fn from_spec(index: usize, device: &LinuxDevice) -> Result<Device> {
    let field = |name: &str| format!("linux.devices[{index}].{name}");
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(invalid(field("type"), "`a` is no kind of node")),
    };
    let number = |name, value: i64| {
        u32::try_from(value).map_err(|_| invalid(field(name), format!("{value} is out of range")))
    };
    if !device.path().is_absolute() {
        return Err(invalid(field("path"), "must be absolute"));
    }
    if device.path().file_name().is_none() {
        return Err(invalid(field("path"), "has no name at its end"));
    }
    let fifo = kind == FileType::Fifo;
    Ok(Device {
        path: device.path().clone(),
        kind,
        major: if fifo { 0 } else { number("major", device.major())? },
        minor: if fifo { 0 } else { number("minor", device.minor())? },
        mode: Mode::from_raw_mode(device.file_mode().unwrap_or(0o666) & 0o7777),
        owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
    })
}

impl Device {
    /// Makes the node, or mounts the host's over an empty file where the kernel forbids nodes
    /// (in a user namespace). The caller's umask is empty.
    pub(crate) fn make(&self, root: &Root, may_mknod: bool) -> Result<()> {
        let what = || format!("make device {} in the container", self.path.display());
        if !may_mknod && self.kind != FileType::Fifo {
            let tree = clone_tree(&self.path, Bind::Shallow).context(what)?;
            let stat = rustix::fs::fstat(&tree).context(what)?;
            if !self.is(&stat) {
                let why = "the host has something else at this path, and devices can't be made in \
                           a user namespace, only taken from the host";
                return Err(Error::failed(what(), why));
            }
            return move_to(&tree, root.file(&self.path)?).context(what);
        }
        let parent = root.directory(self.path.parent().unwrap_or(Path::new("/")))?;
        let name =
            self.path.file_name().ok_or_else(|| invalid("linux.devices", "a path has no name"))?;
        match rustix::fs::mknodat(
            &parent,
            name,
            self.kind,
            self.mode,
            makedev(self.major, self.minor),
        ) {
            Ok(()) => {}
            Err(Errno::EXIST) => return self.check(&parent, name).context(what),
            Err(error) => return Err(error).context(what),
        }
        if self.owner == (0, 0) {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = rustix::fs::openat(&parent, name, flags, Mode::empty()).context(what)?;
        // Whoever else writes to the image may have put something else there meanwhile.
        if !self.is(&rustix::fs::fstat(&node).context(what)?) {
            return Err(Error::failed(what(), "something else is there already"));
        }
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        rustix::fs::chownat(&node, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).context(what)
    }

    /// A node that the image or a mount brought must be the very device.
    fn check(&self, parent: &OwnedFd, name: &std::ffi::OsStr) -> std::io::Result<()> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if self.is(&stat) {
            return Ok(());
        }
        Err(std::io::Error::other("something else is there already"))
    }

    fn is(&self, stat: &rustix::fs::Stat) -> bool {
        FileType::from_raw_mode(stat.st_mode) == self.kind
            && (self.kind == FileType::Fifo || stat.st_rdev == makedev(self.major, self.minor))
    }
}

/// Makes the usual links where nothing is yet.
pub(crate) fn link(root: &Root) -> Result<()> {
    let dev = root.directory(Path::new("/dev"))?;
    for (target, path) in LINKS {
        match rustix::fs::symlinkat(target, &dev, path.trim_start_matches("/dev/")) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).context(|| format!("link {path} in the container")),
        }
    }
    Ok(())
}
