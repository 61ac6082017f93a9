//! The mounts of a configuration, made one by one with the descriptor-based mount calls, so that
//! nothing the image holds can redirect them (CVE-2021-30465).

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use oci_spec::runtime::Mount;
use runhcs_compute::{Error, Result};
use rustix::fs::{AtFlags, CWD, FileType};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::file_system::{FileSystem, FileSystemError};
use super::mount_attr;
use super::options::{Attributes, Bind, MountOptions, attr};
use super::resolve::Root;
use crate::error::{Context, invalid};
use crate::labels::{self, TakesContext};

/// A mount of the configuration, parsed.
#[derive(Debug)]
pub(crate) struct PlannedMount<'a> {
    pub destination: Cow<'a, Path>,
    pub kind: Kind<'a>,
    pub options: MountOptions,
}

/// Where a mount's files come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind<'a> {
    /// Another place of the caller's mount namespace.
    Bind { source: &'a Path, bind: Bind },
    /// The container's own part of the control groups.
    Cgroup,
    /// A file system of this type.
    FileSystem { name: &'a str, source: &'a str },
    /// What is mounted there already, to be changed: the file system too, or this mount alone.
    Remount { mount_alone: bool },
}

impl<'a> PlannedMount<'a> {
    /// Parses `mounts[index]`. A destination that names a place in `root` as the host sees it means
    /// that place, as with runc.
    pub(crate) fn new(index: usize, mount: &'a Mount, root: &Path) -> Result<Self> {
        let field = |name: &str| format!("mounts[{index}].{name}");
        let options = MountOptions::parse(mount.options().iter().flatten().map(String::as_str));
        let source = mount.source().as_deref();
        let typ = mount.typ().as_deref().filter(|t| !t.is_empty());
        let bind = options.bind.or((typ == Some("bind")).then_some(Bind::Shallow));
        let kind = match (bind, typ) {
            _ if options.remount => Kind::Remount { mount_alone: bind.is_some() },
            (Some(bind), _) => {
                check_specific(mount, &field("options"))?;
                let source =
                    source.ok_or_else(|| invalid(field("source"), "a bind mount needs one"))?;
                Kind::Bind { source, bind }
            }
            (None, Some("cgroup" | "cgroup2")) => Kind::Cgroup,
            (None, Some(name)) => {
                let source = source.and_then(Path::to_str).unwrap_or(name);
                Kind::FileSystem { name, source }
            }
            (None, None) => {
                return Err(invalid(field("type"), "is missing, and it is no bind mount"));
            }
        };
        let destination = mount.destination();
        let destination = match destination.strip_prefix(root) {
            Ok(within) if root != Path::new("/") => Cow::Owned(Path::new("/").join(within)),
            _ if destination.is_relative() => Cow::Owned(Path::new("/").join(destination)),
            _ => Cow::Borrowed(destination.as_path()),
        };
        Ok(Self { destination, kind, options })
    }

    /// Gives the files of a new file system an SELinux context, as far as that is an option.
    pub(crate) fn label(&mut self, label: &str) {
        if self.takes_context() == TakesContext::AsOption {
            self.options.data.push(labels::context_option(label));
        }
    }

    /// How it gets an SELinux context. Files that are mounted elsewhere already have theirs.
    pub(crate) fn takes_context(&self) -> TakesContext {
        match self.kind {
            Kind::FileSystem { name, .. } => TakesContext::of(name),
            // The directories of version 1's hierarchies are in a tmpfs.
            Kind::Cgroup => TakesContext::AsOption,
            Kind::Bind { .. } | Kind::Remount { .. } => TakesContext::FromPolicy,
        }
    }

    /// Whether control groups show in it or limit it: by what its files take of memory, and by
    /// which devices may be opened.
    pub(crate) fn concerns_cgroups(&self) -> bool {
        match &self.kind {
            Kind::Cgroup => true,
            Kind::FileSystem { source, .. } => source.starts_with('/') || self.options.copy_up,
            Kind::Bind { .. } | Kind::Remount { .. } => false,
        }
    }

    /// Whether the container's root is this mount, once it is made.
    pub(crate) fn covers_root(&self) -> bool {
        let has_name = self.destination.components().any(|c| matches!(c, Component::Normal(_)));
        !has_name && !matches!(self.kind, Kind::Remount { .. })
    }

    /// Makes the mount in `root`.
    pub(crate) fn make(&self, root: &Root) -> Result<OwnedFd> {
        match &self.kind {
            Kind::Bind { source, bind } => self.bind(root, source, *bind),
            Kind::FileSystem { name, source } => self.file_system(root, name, source),
            Kind::Remount { mount_alone } => self.remount(root, *mount_alone),
            Kind::Cgroup => {
                Err(invalid("mounts", "control groups are mounted by their own module"))
            }
        }
    }

    fn bind(&self, root: &Root, source: &Path, bind: Bind) -> Result<OwnedFd> {
        let tree = clone_tree(source, bind)?;
        self.attach_tree(root, &tree)?;
        Ok(tree)
    }

    /// Makes a bind mount of a detached tree.
    pub(crate) fn attach_tree(&self, root: &Root, tree: &OwnedFd) -> Result<()> {
        let target = self.target_for(root, tree)?;
        self.attach(tree, &target)
    }

    fn remount(&self, root: &Root, mount_alone: bool) -> Result<OwnedFd> {
        let target = root.find(&self.destination)?;
        let target = target.ok_or_else(|| Error::failed(self.what(), "nothing is there"))?;
        if !mount_alone {
            let mut options = self.options.data.clone();
            let Attributes { set, clear } = self.options.attributes;
            options.extend((set & attr::RDONLY != 0).then(|| "ro".to_owned()));
            options.extend((clear & attr::RDONLY != 0).then(|| "rw".to_owned()));
            FileSystem::mounted(target.as_fd())
                .and_then(|file_system| file_system.change(&options))
                .context(|| self.what())?;
        }
        self.set_attributes(&target)?;
        Ok(target)
    }

    /// The mount point for a bind mount: a directory or a file, as the source is.
    pub(crate) fn target_for(&self, root: &Root, tree: &OwnedFd) -> Result<OwnedFd> {
        let stat = rustix::fs::fstat(tree).context(|| self.what())?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            root.directory(&self.destination)
        } else {
            root.file(&self.destination)
        }
    }

    fn file_system(&self, root: &Root, name: &str, source: &str) -> Result<OwnedFd> {
        // Looked at before the directory is made, if it has to be.
        let covered = match name {
            "tmpfs" => root.find(&self.destination)?,
            _ => None,
        };
        let target = match name {
            // An image that leads procfs or sysfs to another place would have everybody in the
            // container who trusts `/proc` or `/sys` look at files of its own (CVE-2019-19921).
            "proc" | "sysfs" => root.plain_directory(&self.destination)?,
            _ => root.directory(&self.destination)?,
        };
        let mut options = self.options.data.clone();
        if source.starts_with('/') && self.options.attributes.set & attr::RDONLY != 0 {
            // A device that can't be written takes no file system that could be.
            options.push("ro".to_owned());
        }
        if let Some(covered) = covered.filter(|_| !options.iter().any(|o| o.starts_with("mode="))) {
            // As with runc, a tmpfs looks like the directory that it covers.
            let mode = rustix::fs::fstat(&covered).context(|| self.what())?.st_mode & 0o7777;
            options.push(format!("mode={mode:o}"));
        }
        let mount = new_file_system(name, source, &options).map_err(|error| {
            match owner_of(name).filter(|_| error.is_denied()) {
                Some(namespace) => Error::failed(
                    self.what(),
                    format!(
                        "{error}; in a user namespace it takes a new {namespace} namespace, \
                         otherwise bind-mount the host's"
                    ),
                ),
                None => Error::failed(self.what(), error),
            }
        })?;
        if self.options.copy_up {
            copy_up(&target, &mount).context(|| {
                format!("copy the image's {} into the tmpfs", self.destination.display())
            })?;
        }
        self.attach(&mount, &target)?;
        Ok(mount)
    }

    /// Gives a detached mount its attributes and attaches it.
    pub(crate) fn attach(&self, mount: &OwnedFd, target: &OwnedFd) -> Result<()> {
        self.keep_procfs_whole(mount, target)?;
        self.set_attributes(mount)?;
        move_to(mount, target).context(|| self.what())?;
        for flags in &self.options.propagation {
            mount_attr::set_propagation(mount.as_fd(), *flags)
                .context(|| format!("set the propagation of {}", self.destination.display()))?;
        }
        Ok(())
    }

    /// Refuses to replace parts of procfs, also by way of the image's symbolic links, and `/proc`
    /// as a whole by something else: what is written to them, and what is masked in them, would be
    /// elsewhere (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).
    fn keep_procfs_whole(&self, mount: &OwnedFd, target: &OwnedFd) -> Result<()> {
        let is_procfs =
            |fd: &OwnedFd| Kernel::of(fd).context(|| self.what()).map(|k| k == Some(Kernel::Proc));
        let mounts_procfs = is_procfs(mount)?;
        let replaceable = REPLACEABLE.iter().any(|path| self.destination == Path::new(path));
        // A root that is the host's brings its procfs along, to be covered by the container's.
        let whole = || -> Result<bool> {
            let stat = rustix::fs::fstat(target).context(|| self.what())?;
            Ok(mounts_procfs && stat.st_ino == crate::proc::PROC_ROOT_INODE)
        };
        if !replaceable && is_procfs(target)? && !whole()? {
            let why = format!("it lies in procfs, of which only {} can be replaced", list());
            return Err(Error::failed(self.what(), why));
        }
        if self.destination == Path::new("/proc") && !mounts_procfs {
            return Err(Error::failed(self.what(), "only procfs can be mounted there"));
        }
        Ok(())
    }

    /// A tmpfs gets things put into it, the devices among them, before it is made read-only, as
    /// runc has it.
    pub(crate) fn is_read_only_later(&self) -> bool {
        matches!(self.kind, Kind::FileSystem { name: "tmpfs", .. })
            && self.options.attributes.set & attr::RDONLY != 0
    }

    fn set_attributes(&self, mount: &OwnedFd) -> Result<()> {
        let mut attributes = self.options.attributes;
        if self.is_read_only_later() {
            attributes.set &= !attr::RDONLY;
        }
        let what = || format!("set the mount options of {}", self.destination.display());
        let recursive = self.options.recursive;
        if !recursive.is_empty() {
            mount_attr::set(mount.as_fd(), recursive, true).context(what)?;
        }
        if attributes.is_empty() {
            return Ok(());
        }
        if matches!(self.kind, Kind::Bind { .. }) {
            match mount_attr::set(mount.as_fd(), attributes.alone(recursive.set), false) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    attributes = attributes.with_locked();
                }
                other => return other.context(what),
            }
        }
        mount_attr::set(mount.as_fd(), attributes, false).context(what)
    }

    fn what(&self) -> String {
        let destination = self.destination.display();
        match &self.kind {
            Kind::Bind { source, .. } => {
                format!("bind-mount {} on {destination}", source.display())
            }
            Kind::FileSystem { name, .. } => format!("mount {name} on {destination}"),
            Kind::Cgroup => format!("mount the control groups on {destination}"),
            Kind::Remount { .. } => format!("change the mount on {destination}"),
        }
    }
}

/// Files of procfs that may be replaced, as lxcfs does: they only inform (the list is runc's).
const REPLACEABLE: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

fn list() -> String {
    REPLACEABLE.map(|path| path.trim_start_matches("/proc/")).join(", ")
}

/// File systems whose content is the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    Proc,
    Sys,
}

impl Kernel {
    /// Which of them a descriptor is in, if any.
    pub(crate) fn of(fd: &OwnedFd) -> rustix::io::Result<Option<Self>> {
        const SYSFS_MAGIC: i64 = 0x6265_6572;
        Ok(match rustix::fs::fstatfs(fd)?.f_type {
            crate::proc::PROC_SUPER_MAGIC => Some(Self::Proc),
            SYSFS_MAGIC => Some(Self::Sys),
            _ => None,
        })
    }
}

/// The namespace of whose owner the kernel asks privilege to mount a file system that shows it.
fn owner_of(file_system: &str) -> Option<&'static str> {
    match file_system {
        "sysfs" => Some("network"),
        "proc" => Some("pid"),
        "mqueue" => Some("ipc"),
        _ => None,
    }
}

/// A detached copy of a tree of the caller's mount namespace.
pub(crate) fn clone_tree(source: &Path, bind: Bind) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if bind == Bind::Recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, source, flags).context(|| format!("open {} to mount it", source.display()))
}

/// A detached mount of a new file system.
pub(crate) fn new_file_system(
    name: &str,
    source: &str,
    options: &[String],
) -> std::result::Result<OwnedFd, FileSystemError> {
    FileSystem::new(name, source)?.mount(options)
}

/// A bind mount takes no options of the file system, which is mounted elsewhere already. Those with
/// a value (`mode=755`) runc ignores, and configurations have them; a word that nobody knows is
/// refused.
fn check_specific(mount: &Mount, field: &str) -> Result<()> {
    for (index, option) in mount.options().iter().flatten().enumerate() {
        if !MountOptions::is_specific(option) {
            continue;
        }
        if !option.contains('=') {
            let why = format!("{option:?} is no option of a bind mount");
            return Err(invalid(format!("{field}[{index}]"), why));
        }
        tracing::warn!("{field}[{index}]: {option:?} is no option of a bind mount: ignored");
    }
    Ok(())
}

/// Attaches a detached mount.
pub(crate) fn move_to(mount: &OwnedFd, target: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount.as_fd(), "", target.as_fd(), "", flags)
}

/// Copies a directory's content into a detached tmpfs, keeping owners, modes and links.
fn copy_up(from: &OwnedFd, to: &OwnedFd) -> std::io::Result<()> {
    use rustix::fs::{Dir, Mode, OFlags, openat, readlinkat};
    let open = |fd: &OwnedFd| {
        openat(fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let (from, to) = (open(from)?, open(to)?);
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let no_follow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(&to, name, mode)?;
                let source = openat(
                    &from,
                    name,
                    OFlags::RDONLY | OFlags::DIRECTORY | no_follow,
                    Mode::empty(),
                )?;
                let target = openat(
                    &to,
                    name,
                    OFlags::RDONLY | OFlags::DIRECTORY | no_follow,
                    Mode::empty(),
                )?;
                copy_up(&source, &target)?;
            }
            FileType::Symlink => {
                let link = readlinkat(&from, name, Vec::new())?;
                rustix::fs::symlinkat(link, &to, name)?;
            }
            FileType::RegularFile => {
                // Whoever else writes to the image may have put a FIFO or a device there meanwhile.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | no_follow;
                let source = openat(&from, name, flags, Mode::empty())?;
                let opened = rustix::fs::fstat(&source)?;
                if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
                    return Err(std::io::Error::other("it changed while it was copied"));
                }
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | no_follow;
                let target = openat(&to, name, flags, mode)?;
                std::io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(target))?;
            }
            _ => continue,
        }
        let owner = (
            Some(rustix::process::Uid::from_raw(stat.st_uid)),
            Some(rustix::process::Gid::from_raw(stat.st_gid)),
        );
        rustix::fs::chownat(&to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            rustix::fs::chmodat(&to, name, mode, AtFlags::empty())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_file_systems_have_the_context_of_the_containers_files() {
        let of = |mount: serde_json::Value| {
            let mount: Mount = serde_json::from_value(mount).unwrap();
            let mut planned = PlannedMount::new(0, &mount, Path::new("/r")).unwrap();
            planned.label("a:b:c:s0:c1,c2");
            let options = planned.options.data.iter().filter(|option| option.contains("context"));
            (options.cloned().collect::<Vec<_>>(), planned.takes_context())
        };
        let new = |name: &str| of(serde_json::json!({ "destination": "/x", "type": name }));
        // A terminal is a file of devpts.
        for name in ["tmpfs", "devpts", "cgroup"] {
            let option = vec!["context=a:b:c:s0:c1,c2".to_owned()];
            assert_eq!(new(name), (option, TakesContext::AsOption), "{name}");
        }
        for (name, takes) in [
            ("mqueue", TakesContext::OnRoot),
            ("proc", TakesContext::FromPolicy),
            ("sysfs", TakesContext::FromPolicy),
        ] {
            assert_eq!(new(name), (Vec::new(), takes), "{name}");
        }
        let bind = serde_json::json!({ "destination": "/x", "type": "bind", "source": "/tmp" });
        assert_eq!(of(bind), (Vec::new(), TakesContext::FromPolicy));
    }
}
