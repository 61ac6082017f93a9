//! Which namespaces a container gets anew and which it joins.

use std::collections::HashMap;
use std::fmt::Display;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, LinuxTimeOffset, Spec};
use runhcs_compute::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::ThreadNameSpaceType;

use crate::Init;
use crate::error::{Context, invalid};

/// Namespaces to join: flags of clone(2), a name for them, and the namespace, or a pidfd of the
/// process whose they are.
pub(crate) type Joined = Vec<(i32, &'static str, OwnedFd)>;

/// linux/sched.h; libc has it for some architectures only.
pub(crate) const CLONE_NEWTIME: i32 = 0x80;

/// linux/nsfs.h: of which kind a namespace is, by its flag of clone(2).
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// The kinds of namespaces, with the names that errors give them, their names in procfs, and their
/// flags, in the order in which they are joined: the user namespace first, for the others may belong
/// to it; the mount namespace last, for their paths are the caller's.
const KINDS: [(LinuxNamespaceType, &str, &str, i32); 8] = [
    (LinuxNamespaceType::User, "user", "user", libc::CLONE_NEWUSER),
    (LinuxNamespaceType::Ipc, "ipc", "ipc", libc::CLONE_NEWIPC),
    (LinuxNamespaceType::Uts, "uts", "uts", libc::CLONE_NEWUTS),
    (LinuxNamespaceType::Network, "network", "net", libc::CLONE_NEWNET),
    (LinuxNamespaceType::Pid, "pid", "pid", libc::CLONE_NEWPID),
    (LinuxNamespaceType::Cgroup, "cgroup", "cgroup", libc::CLONE_NEWCGROUP),
    (LinuxNamespaceType::Time, "time", "time", CLONE_NEWTIME),
    (LinuxNamespaceType::Mount, "mount", "mnt", libc::CLONE_NEWNS),
];

/// The first user namespace's inode (`PROC_USER_INIT_INO` in linux/proc_ns.h).
const FIRST_USER_NAMESPACE: u64 = 0xefff_fffd;

/// A namespace that `linux.namespaces` has a path of.
#[derive(Debug)]
struct ByPath {
    flag: i32,
    name: &'static str,
    path: PathBuf,
    /// Its place in `linux.namespaces`.
    index: usize,
}

/// A container's namespaces.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    new: i32,
    joined: Vec<ByPath>,
    /// The text of `/proc/self/timens_offsets`, if there is to be any.
    time_offsets: Option<String>,
}

impl Namespaces {
    /// Reads `linux.namespaces`.
    pub(crate) fn from_spec(spec: &Spec) -> Result<Self> {
        let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        let mut namespaces = Self::default();
        for (kind, name, _, flag) in KINDS {
            let listed = listed.into_iter().flatten().enumerate();
            let mut found = listed.filter(|(_, ns)| ns.typ() == kind);
            let Some((index, first)) = found.next() else { continue };
            if found.next().is_some() {
                return Err(invalid("linux.namespaces", format!("{name} is listed twice")));
            }
            match first.path() {
                Some(path) if path.as_os_str().is_empty() => namespaces.new |= flag,
                Some(path) => {
                    namespaces.joined.push(ByPath { flag, name, path: path.clone(), index });
                }
                None => namespaces.new |= flag,
            }
        }
        let offsets = spec.linux().as_ref().and_then(|linux| linux.time_offsets().as_ref());
        if let Some(offsets) = offsets.filter(|offsets| !offsets.is_empty()) {
            if !namespaces.is_new(CLONE_NEWTIME) {
                let message = "needs a new time namespace in linux.namespaces";
                return Err(invalid("linux.timeOffsets", message));
            }
            namespaces.time_offsets = Some(time_offsets(offsets)?);
        }
        if !namespaces.has(libc::CLONE_NEWNS) {
            return Err(invalid("linux.namespaces", "a container needs a mount namespace"));
        }
        Ok(namespaces)
    }

    /// Whether the container has a namespace of this kind apart from the caller's.
    pub(crate) fn has(&self, flag: i32) -> bool {
        self.is_new(flag) || self.joined.iter().any(|joined| joined.flag == flag)
    }

    /// Whether the container gets a new namespace of this kind.
    pub(crate) fn is_new(&self, flag: i32) -> bool {
        self.new & flag != 0
    }

    /// The flags for clone(2). A cgroup namespace is made later, from inside the control group.
    pub(crate) fn clone_flags(&self) -> i32 {
        self.new & !libc::CLONE_NEWCGROUP & !CLONE_NEWTIME
    }

    /// Gives the children that are made while the result exists a new time namespace, if there is
    /// to be one. Its clocks can be set only before it has a process (time_namespaces(7)).
    pub(crate) fn new_time_namespace(&self) -> Result<Option<OwnTimeNamespace>> {
        if !self.is_new(CLONE_NEWTIME) {
            return Ok(None);
        }
        let own = rustix::fs::open("/proc/self/ns/time", OFlags::CLOEXEC, Mode::empty())
            .context(|| "open the own time namespace".into())?;
        // SAFETY: a time namespace for children changes no descriptor and no memory.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWTIME) }
            .context(|| "make a time namespace".into())?;
        let own = OwnTimeNamespace(own);
        if let Some(offsets) = &self.time_offsets {
            std::fs::write("/proc/self/timens_offsets", offsets)
                .context(|| format!("linux.timeOffsets: set the clocks to {offsets:?}"))?;
        }
        Ok(Some(own))
    }

    /// Opens the namespaces to join, while the caller's paths are still valid.
    pub(crate) fn open_joined(&self) -> Result<Joined> {
        self.joined.iter().map(|joined| Ok((joined.flag, joined.name, joined.open()?))).collect()
    }
}

impl ByPath {
    /// Opens it. What is not of this kind would be refused by the kernel without a reason.
    fn open(&self) -> Result<OwnedFd> {
        let Self { flag, name, path, index } = self;
        let field = format!("linux.namespaces[{index}].path");
        let what = || format!("{field}: open {name} namespace {}", path.display());
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let fd = fd.context(what)?;
        // SAFETY: the call takes no argument and says a number (ioctl_nsfs(2)).
        let found = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
        if found != *flag {
            let kind = KINDS.iter().find(|(.., flag)| *flag == found);
            let is =
                kind.map_or("no namespace".into(), |(_, name, ..)| format!("a {name} namespace"));
            return Err(invalid(field, format!("{} is {is}, not a {name} one", path.display())));
        }
        if *flag == libc::CLONE_NEWUSER {
            let theirs = rustix::fs::fstat(&fd).context(what)?;
            if identity("self", "user").context(what)? == (theirs.st_dev, theirs.st_ino) {
                let why = "is the user namespace of runhcs itself, which can't be joined; to stay in \
                           it, list no user namespace";
                return Err(invalid(field, why));
            }
        }
        Ok(fd)
    }
}

/// The caller's own time namespace. Dropping it makes it that of later children again.
#[derive(Debug)]
pub(crate) struct OwnTimeNamespace(OwnedFd);

impl Drop for OwnTimeNamespace {
    fn drop(&mut self) {
        // One can always go back to where one is: only children were to be elsewhere.
        let _ = join(CLONE_NEWTIME, "own time", &self.0);
    }
}

fn time_offsets(offsets: &HashMap<String, LinuxTimeOffset>) -> Result<String> {
    let mut clocks: Vec<_> = offsets.iter().collect();
    clocks.sort_by_key(|(clock, _)| *clock);
    let mut text = String::new();
    for (clock, offset) in clocks {
        let field = |name: &str| format!("linux.timeOffsets.{clock}{name}");
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(invalid(field(""), "is not a clock that can be set: monotonic, boottime"));
        }
        let nanoseconds = offset.nanosecs().unwrap_or_default();
        if nanoseconds >= 1_000_000_000 {
            let message = format!("{nanoseconds} is not less than a second");
            return Err(invalid(field(".nanosecs"), message));
        }
        text += &format!("{clock} {} {nanoseconds}\n", offset.secs().unwrap_or_default());
    }
    Ok(text)
}

/// The namespaces to join for being where a process is, whose pidfd it is; `None` if it has ended.
pub(crate) fn of_process(init: &Init, pidfd: OwnedFd) -> Result<Option<Joined>> {
    if let (Ok(own), Ok(theirs)) = (identity("self", "user"), identity(init.pid, "user"))
        && own.1 == FIRST_USER_NAMESPACE
        && own == theirs
        && rustix::process::geteuid().is_root()
    {
        // Joining where one is already is allowed there, and less work than looking.
        let others =
            KINDS.iter().map(|(.., flag)| flag).filter(|flag| **flag != libc::CLONE_NEWUSER);
        return Ok(Some(vec![(others.sum(), "container's", pidfd)]));
    }
    let joined = differing(init.pid)?;
    // What was opened might be a stranger's otherwise.
    Ok(init.open()?.map(|_| joined))
}

/// What tells a process's namespace from others: the device and the number of its file in procfs
/// (namespaces(7)).
fn identity(process: impl Display, kind: &str) -> rustix::io::Result<(u64, u64)> {
    rustix::fs::stat(format!("/proc/{process}/ns/{kind}")).map(|stat| (stat.st_dev, stat.st_ino))
}

/// The namespaces in which a process is and the caller isn't.
fn differing(pid: u32) -> Result<Joined> {
    let mut differing = Vec::new();
    for (_, _, name, flag) in KINDS {
        let path = format!("/proc/{pid}/ns/{name}");
        let what = || format!("open {path}");
        let own = match identity("self", name) {
            // The kernel was built without this kind.
            Err(Errno::NOENT) => continue,
            other => other.context(what)?,
        };
        let theirs = match identity(pid, name) {
            Err(Errno::ACCESS) => {
                let why = "an ordinary user can enter a container only once it has been started; \
                           until then its process is hidden";
                return Err(Error::failed(what(), why));
            }
            other => other.context(what)?,
        };
        if theirs == own {
            continue;
        }
        let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        differing.push((flag, name, fd.context(what)?));
    }
    Ok(differing)
}

/// Moves the caller into a namespace, or into several of the process that the pidfd is of.
pub(crate) fn join(flags: i32, name: &str, fd: &OwnedFd) -> Result<()> {
    let several = flags.count_ones() > 1;
    let what = || format!("join the {name} namespace{}", if several { "s" } else { "" });
    match set(flags, fd) {
        // The kernel was built without one of these kinds; it has changed nothing.
        Err(Errno::INVAL) if several => {
            let wanted = KINDS.iter().filter(|(.., flag)| flags & flag != 0);
            let exists = |name: &str| identity("self", name).is_ok();
            let there: Vec<_> = wanted.filter(|(_, _, name, _)| exists(name)).collect();
            there.into_iter().try_for_each(|(.., flag)| set(*flag, fd)).context(what)
        }
        other => other.context(what),
    }
}

fn set(flags: i32, fd: &OwnedFd) -> rustix::io::Result<()> {
    let kinds = ThreadNameSpaceType::from_bits_retain(flags as u32);
    rustix::thread::move_into_thread_name_spaces(fd.as_fd(), kinds)
}

/// Gives the caller a cgroup namespace whose root is its present control group.
pub(crate) fn unshare_cgroup() -> Result<()> {
    // SAFETY: a new cgroup namespace changes no descriptor and no memory.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWCGROUP) }
        .context(|| "make a cgroup namespace".into())
}
