//! The mounts of a configuration, made one by one with the descriptor-based mount calls, so that
//! nothing the image holds can redirect them (CVE-2021-30465).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Mount;
use runhcs_compute::{Error, Result};
use rustix::fs::{AtFlags, CWD, FileType};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree,
};

use super::mount_attr;
use super::options::{Bind, MountOptions, attr};
use super::resolve::Root;
use crate::error::{Context, invalid};

/// A mount of the configuration, parsed.
#[derive(Debug)]
pub(crate) struct PlannedMount<'a> {
    pub destination: &'a Path,
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
}

impl<'a> PlannedMount<'a> {
    /// Parses `mounts[index]`.
    pub(crate) fn new(index: usize, mount: &'a Mount) -> Result<Self> {
        let field = |name: &str| format!("mounts[{index}].{name}");
        let options = MountOptions::parse(mount.options().iter().flatten().map(String::as_str));
        let source = mount.source().as_deref();
        let typ = mount.typ().as_deref().filter(|t| !t.is_empty());
        if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
            return Err(invalid(field("uidMappings"), "id-mapped mounts are not supported yet"));
        }
        let bind = options.bind.or((typ == Some("bind")).then_some(Bind::Shallow));
        let kind = match (bind, typ) {
            (Some(bind), _) => {
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
        Ok(Self { destination: mount.destination(), kind, options })
    }

    /// Makes the mount in `root`.
    pub(crate) fn make(&self, root: &Root) -> Result<()> {
        match &self.kind {
            Kind::Bind { source, bind } => self.bind(root, source, *bind),
            Kind::FileSystem { name, source } => self.file_system(root, name, source),
            Kind::Cgroup => {
                Err(invalid("mounts", "control groups are mounted by their own module"))
            }
        }
    }

    fn bind(&self, root: &Root, source: &Path, bind: Bind) -> Result<()> {
        let tree = clone_tree(source, bind)?;
        let target = self.target_for(root, &tree)?;
        self.attach(&tree, &target)
    }

    /// The mount point for a bind mount: a directory or a file, as the source is.
    pub(crate) fn target_for(&self, root: &Root, tree: &OwnedFd) -> Result<OwnedFd> {
        let stat = rustix::fs::fstat(tree).context(|| self.what())?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            root.directory(self.destination)
        } else {
            root.file(self.destination)
        }
    }

    fn file_system(&self, root: &Root, name: &str, source: &str) -> Result<()> {
        if matches!(name, "proc" | "sysfs") {
            self.refuse_symlink(root, name)?;
        }
        let mut data = self.options.data.clone();
        // As with runc, a tmpfs looks like the directory that it covers.
        if name == "tmpfs"
            && !data.iter().any(|option| option.starts_with("mode="))
            && let Some(covered) = root.find(self.destination)?
        {
            let mode = rustix::fs::fstat(&covered).context(|| self.what())?.st_mode & 0o7777;
            data.push(format!("mode={mode:o}"));
        }
        let target = root.directory(self.destination)?;
        let mount = new_file_system(name, source, &data).map_err(|error| {
            match owner_of(name).filter(|_| error == rustix::io::Errno::PERM) {
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
        self.attach(&mount, &target)
    }

    /// Gives a detached mount its attributes and attaches it.
    pub(crate) fn attach(&self, mount: &OwnedFd, target: &OwnedFd) -> Result<()> {
        self.set_attributes(mount)?;
        move_to(mount, target).context(|| self.what())?;
        for flags in &self.options.propagation {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(mount));
            mount_change(path, *flags)
                .context(|| format!("set the propagation of {}", self.destination.display()))?;
        }
        Ok(())
    }

    /// A tmpfs gets things put into it, the devices among them, before it is made read-only, as
    /// runc has it.
    pub(crate) fn is_read_only_later(&self) -> bool {
        matches!(self.kind, Kind::FileSystem { name: "tmpfs", .. })
            && self.options.attributes.set & attr::RDONLY != 0
    }

    /// An image that leads procfs or sysfs to another place would have everybody in the container
    /// who trusts `/proc` or `/sys` look at files of its own (CVE-2019-19921).
    fn refuse_symlink(&self, root: &Root, name: &str) -> Result<()> {
        let path = self.destination.strip_prefix("/").unwrap_or(self.destination);
        let found = rustix::fs::statat(root.as_fd(), path, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink) {
            let why =
                format!("{name} must be mounted on ordinary directory, not on a symbolic link");
            return Err(Error::failed(self.what(), why));
        }
        Ok(())
    }

    fn set_attributes(&self, mount: &OwnedFd) -> Result<()> {
        let mut attributes = self.options.attributes;
        if self.is_read_only_later() {
            attributes.set &= !attr::RDONLY;
        }
        for (attributes, recursive) in [(self.options.recursive, true), (attributes, false)] {
            if !attributes.is_empty() {
                mount_attr::set(mount.as_fd(), attributes, recursive).context(|| {
                    format!("set the mount options of {}", self.destination.display())
                })?;
            }
        }
        Ok(())
    }

    fn what(&self) -> String {
        let destination = self.destination.display();
        match &self.kind {
            Kind::Bind { source, .. } => {
                format!("bind-mount {} on {destination}", source.display())
            }
            Kind::FileSystem { name, .. } => format!("mount {name} on {destination}"),
            Kind::Cgroup => format!("mount the control groups on {destination}"),
        }
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
    data: &[String],
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", source)?;
    for option in data {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(context.as_fd(), key, value)?,
            None => fsconfig_set_flag(context.as_fd(), option.as_str())?,
        }
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Attaches a detached mount.
pub(crate) fn move_to(mount: &OwnedFd, target: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount.as_fd(), "", target.as_fd(), "", flags)
}

/// Makes the mounts of this namespace independent of the caller's, as far as `rootfsPropagation`
/// says so. What is shared or unbindable comes last ([`finish_propagation`]): a shared mount can't
/// be left for another root (pivot_root(2), `EINVAL`), and an unbindable one not be copied to be
/// the new one.
pub(crate) fn set_root_propagation(propagation: Option<&str>) -> Result<()> {
    use MountPropagationFlags as P;
    let flags = match propagation_flags(propagation)? {
        last if last.intersects(P::SHARED | P::UNBINDABLE) => P::DOWNSTREAM | P::REC,
        flags => flags,
    };
    mount_change("/", flags).context(|| "set the propagation of /".into())
}

/// Gives the new root what only a root that has been entered can have: a peer group of its own
/// (config-linux.md, "Rootfs Mount Propagation"), or not to be copied.
pub(crate) fn finish_propagation(propagation: Option<&str>) -> Result<()> {
    use MountPropagationFlags as P;
    let flags = propagation_flags(propagation)?;
    if !flags.intersects(P::SHARED | P::UNBINDABLE) {
        return Ok(());
    }
    mount_change("/", flags).context(|| "set the propagation of the new root".into())
}

fn propagation_flags(propagation: Option<&str>) -> Result<MountPropagationFlags> {
    use MountPropagationFlags as P;
    Ok(match propagation {
        None | Some("" | "rslave") => P::DOWNSTREAM | P::REC,
        Some("slave") => P::DOWNSTREAM,
        Some("private") => P::PRIVATE,
        Some("rprivate") => P::PRIVATE | P::REC,
        Some("shared") => P::SHARED,
        Some("rshared") => P::SHARED | P::REC,
        Some("unbindable") => P::UNBINDABLE,
        Some("runbindable") => P::UNBINDABLE | P::REC,
        Some(other) => {
            return Err(invalid("linux.rootfsPropagation", format!("{other:?} is unknown")));
        }
    })
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
                let source = openat(&from, name, OFlags::RDONLY | no_follow, Mode::empty())?;
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
