//! Which namespaces a container gets anew and which it joins.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use runhcs_compute::Result;
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use crate::error::{Context, invalid};

/// The kinds of namespaces, in the order in which they are joined: the user namespace first, for
/// the others may belong to it; the mount namespace last, for their paths are the caller's.
const KINDS: [(LinuxNamespaceType, &str, i32); 8] = [
    (LinuxNamespaceType::User, "user", libc::CLONE_NEWUSER),
    (LinuxNamespaceType::Ipc, "ipc", libc::CLONE_NEWIPC),
    (LinuxNamespaceType::Uts, "uts", libc::CLONE_NEWUTS),
    (LinuxNamespaceType::Network, "network", libc::CLONE_NEWNET),
    (LinuxNamespaceType::Pid, "pid", libc::CLONE_NEWPID),
    (LinuxNamespaceType::Cgroup, "cgroup", libc::CLONE_NEWCGROUP),
    (LinuxNamespaceType::Time, "time", 0x80),
    (LinuxNamespaceType::Mount, "mount", libc::CLONE_NEWNS),
];

/// A container's namespaces.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    new: i32,
    joined: Vec<(i32, &'static str, PathBuf)>,
}

impl Namespaces {
    /// Reads `linux.namespaces`.
    pub(crate) fn from_spec(spec: &Spec) -> Result<Self> {
        let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        let mut namespaces = Self::default();
        for (kind, name, flag) in KINDS {
            let mut found = listed.into_iter().flatten().filter(|ns| ns.typ() == kind);
            let Some(first) = found.next() else { continue };
            if found.next().is_some() {
                return Err(invalid("linux.namespaces", format!("{name} is listed twice")));
            }
            match first.path() {
                Some(path) if path.as_os_str().is_empty() => namespaces.new |= flag,
                Some(path) => namespaces.joined.push((flag, name, path.clone())),
                None => namespaces.new |= flag,
            }
        }
        if namespaces.new & 0x80 != 0 {
            return Err(invalid("linux.namespaces", "a new time namespace is not supported yet"));
        }
        if !namespaces.has(libc::CLONE_NEWNS) {
            return Err(invalid("linux.namespaces", "a container needs a mount namespace"));
        }
        Ok(namespaces)
    }

    /// Whether the container has a namespace of this kind apart from the caller's.
    pub(crate) fn has(&self, flag: i32) -> bool {
        self.is_new(flag) || self.joined.iter().any(|(joined, ..)| *joined == flag)
    }

    /// Whether the container gets a new namespace of this kind.
    pub(crate) fn is_new(&self, flag: i32) -> bool {
        self.new & flag != 0
    }

    /// The flags for clone(2). A cgroup namespace is made later, from inside the control group.
    pub(crate) fn clone_flags(&self) -> i32 {
        self.new & !libc::CLONE_NEWCGROUP
    }

    /// Opens the namespaces to join, while the caller's paths are still valid.
    pub(crate) fn open_joined(&self) -> Result<Vec<(i32, &'static str, OwnedFd)>> {
        self.joined
            .iter()
            .map(|(flag, name, path)| {
                let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .context(|| format!("open {name} namespace {}", path.display()))?;
                Ok((*flag, *name, fd))
            })
            .collect()
    }
}

/// Moves the caller into a namespace.
pub(crate) fn join(flag: i32, name: &str, fd: &OwnedFd) -> Result<()> {
    let kind = match flag {
        libc::CLONE_NEWUSER => LinkNameSpaceType::User,
        libc::CLONE_NEWIPC => LinkNameSpaceType::InterProcessCommunication,
        libc::CLONE_NEWUTS => LinkNameSpaceType::HostNameAndNISDomainName,
        libc::CLONE_NEWNET => LinkNameSpaceType::Network,
        libc::CLONE_NEWPID => LinkNameSpaceType::ProcessID,
        libc::CLONE_NEWCGROUP => LinkNameSpaceType::ControlGroup,
        libc::CLONE_NEWNS => LinkNameSpaceType::Mount,
        _ => LinkNameSpaceType::Time,
    };
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(fd), Some(kind))
        .context(|| format!("join the {name} namespace"))
}

/// Gives the caller a cgroup namespace whose root is its present control group.
pub(crate) fn unshare_cgroup() -> Result<()> {
    // SAFETY: a new cgroup namespace changes no descriptor and no memory.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWCGROUP) }
        .context(|| "make a cgroup namespace".into())
}
