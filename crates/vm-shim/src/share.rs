//! The share tree: a private tmpfs on which the file trees of the pod's containers are mounted,
//! and which the guest sees.
//!
//! ```text
//! /            tmpfs, the shim's root, in a mount namespace of its own
//! /share       tmpfs, shared with the virtiofs daemon's namespace, where it is read-only
//! /share/<n>   a container's root file system, or a source of bind mounts
//! ```
//!
//! Nothing of this is on the host: the trees come as detached mounts, and with the shim's
//! namespace everything is gone, however the shim ends.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use anyhow::{Context, bail, ensure};
use nix::sched::CloneFlags;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount, mount_change,
    mount_remount, move_mount, unmount,
};

use crate::detached::{make_follower, make_private, make_read_only};

/// Where the tree is once [`Namespace::close`] has been called.
const SHARE: &str = "/share";
/// Bounds of the tree's own tmpfs; it holds only mount points, and the guest can't write to it.
const SHARE_OPTIONS: &std::ffi::CStr = c"mode=0755,size=4m,nr_inodes=65536";
const ROOT_OPTIONS: &std::ffi::CStr = c"mode=0700,size=64k,nr_inodes=64";

/// The shim's mount namespace while the host's files are still within reach.
#[derive(Debug)]
pub struct Namespace {
    root: PathBuf,
}

/// Enters a new mount namespace. What is mounted in it doesn't reach the host.
pub fn leave_the_hosts_mounts() -> anyhow::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)
        .context("cannot enter a new mount namespace; the VM shim has to run as root")?;
    // What the host unmounts isn't kept alive by us.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("cannot detach the mount namespace from the host's")
}

impl Namespace {
    /// Enters a new mount namespace and prepares the share tree in it, over `mount_point`, which
    /// is any directory: the host doesn't see what is mounted there.
    pub fn enter(mount_point: &Path) -> anyhow::Result<Self> {
        leave_the_hosts_mounts()?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("runhcs-vm", mount_point, "tmpfs", flags, Some(ROOT_OPTIONS))
            .context("cannot mount the VM's private tmpfs")?;
        let share = mount_point.join("share");
        std::fs::create_dir(&share).context("cannot make the share tree's directory")?;
        mount("runhcs-share", &share, "tmpfs", flags, Some(SHARE_OPTIONS))
            .context("cannot mount the share tree")?;
        mount_change(&share, MountPropagationFlags::SHARED)
            .context("cannot have the share tree propagate")?;
        Ok(Self { root: mount_point.to_owned() })
    }

    /// A directory that only this namespace sees, for short-lived sockets.
    pub fn private_dir(&self) -> &Path {
        &self.root
    }

    /// Where the share tree is for now.
    pub fn share_dir(&self) -> PathBuf {
        self.root.join("share")
    }

    /// Leaves nothing in the namespace but the share tree, so that no mount of the host is kept
    /// busy by a VM that has nothing to do with it.
    pub fn close(self) -> anyhow::Result<ShareTree> {
        let old = self.root.join("host");
        std::fs::create_dir(&old).context("cannot make a directory for the old root")?;
        rustix::process::pivot_root(&self.root, &old).context("cannot change the root")?;
        rustix::process::chdir("/").context("cannot change to the new root")?;
        unmount("/host", UnmountFlags::DETACH).context("cannot let go of the host's mounts")?;
        std::fs::remove_dir("/host").context("cannot remove the old root's directory")?;
        let share = rustix::fs::open(
            SHARE,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .context("cannot open the share tree")?;
        Ok(ShareTree { share, next: 1, volumes: HashMap::new() })
    }
}

/// The tree the guest sees.
#[derive(Debug)]
pub struct ShareTree {
    share: OwnedFd,
    next: u64,
    /// What more than one container can use.
    volumes: HashMap<Origin, Weak<Share>>,
}

/// A tree to be shared.
#[derive(Debug)]
pub struct Tree {
    /// The detached mount.
    pub mount: OwnedFd,
    /// Which part of it the guest may only read.
    pub read_only: ReadOnly,
    /// Whether what the host mounts in it later is seen in the guest too.
    pub follows_host: bool,
    /// Whether it can be one with the same source of another container.
    pub shareable: bool,
}

/// Which files a tree shows, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Origin {
    device: u64,
    inode: u64,
    /// Whether it is read-only, may hold devices, and so on (`f_flag`, statvfs(3)).
    flags: u64,
    read_only: ReadOnly,
}

/// Which part of a tree may only be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadOnly {
    /// None.
    No,
    /// The mount itself, not what is mounted in it.
    Mount,
    /// All of it.
    All,
}

impl ShareTree {
    /// Shares a container's trees: its root file system and its mounts' sources. Undone when the
    /// result is dropped, and if anything fails.
    ///
    /// A source that another container uses already is shared only once. In the guest it is one
    /// file system then, so that locks, shared memory, sockets and pipes in it work between them.
    pub fn attach(&mut self, rootfs: Tree, mounts: Vec<Tree>) -> anyhow::Result<Shared> {
        let rootfs = Rc::new(self.mount(rootfs).context("cannot share the root file system")?);
        let mounts = mounts.into_iter().enumerate().map(|(index, tree)| {
            self.volume(tree).with_context(|| format!("cannot share bind mount {}", index + 1))
        });
        Ok(Shared { mounts: mounts.collect::<anyhow::Result<_>>()?, rootfs })
    }

    /// A volume that is shared already, or a new one.
    fn volume(&mut self, tree: Tree) -> anyhow::Result<Rc<Share>> {
        self.volumes.retain(|_, volume| volume.strong_count() > 0);
        if !tree.shareable || tree.follows_host {
            return Ok(Rc::new(self.mount(tree)?));
        }
        let origin = tree.origin()?;
        // Where the pod may write anyway, the guest holds a container that only reads to that.
        let known = [Origin { read_only: ReadOnly::No, ..origin }, origin];
        if let Some(volume) = known.iter().find_map(|o| self.volumes.get(o).and_then(Weak::upgrade))
        {
            return Ok(volume);
        }
        let volume = Rc::new(self.mount(tree)?);
        self.volumes.insert(origin, Rc::downgrade(&volume));
        Ok(volume)
    }

    /// Mounts a tree in the share tree.
    fn mount(&mut self, tree: Tree) -> anyhow::Result<Share> {
        let mount = tree.mount.as_fd();
        if tree.follows_host { make_follower(mount) } else { make_private(mount) }
            .context("cannot make it a mount of its own")?;
        if tree.read_only != ReadOnly::No {
            // The guest isn't trusted to keep it so. Done before it is attached, because the
            // virtiofs daemon gets a copy of the mount as it is then.
            make_read_only(mount, tree.read_only == ReadOnly::All)
                .context("cannot make it read-only")?;
        }
        let stat = rustix::fs::fstat(mount).context("cannot examine it")?;
        let name = self.next.to_string();
        self.next += 1;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let (mut share, point) = Share::make_point(self.share.as_fd(), name, kind)?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(mount, "", &point, "", flags).context("cannot attach it to the share tree")?;
        share.mounted = true;
        Ok(share)
    }
}

impl Tree {
    fn origin(&self) -> anyhow::Result<Origin> {
        let stat = rustix::fs::fstat(&self.mount).context("cannot examine it")?;
        let mount = rustix::fs::fstatvfs(&self.mount).context("cannot examine its mount")?;
        Ok(Origin {
            device: stat.st_dev,
            inode: stat.st_ino,
            flags: mount.f_flag.bits(),
            read_only: self.read_only,
        })
    }
}

/// A container's shared trees.
#[derive(Debug)]
pub struct Shared {
    rootfs: Rc<Share>,
    mounts: Vec<Rc<Share>>,
}

impl Shared {
    /// Where the guest sees the root file system.
    pub fn guest_rootfs(&self) -> PathBuf {
        self.rootfs.guest_path()
    }

    /// Where the guest sees the source of each shared mount.
    pub fn guest_mounts(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.mounts.iter().map(|share| share.guest_path())
    }
}

/// One mount in the share tree.
#[derive(Debug)]
struct Share {
    name: String,
    directory: bool,
    mounted: bool,
}

impl Share {
    /// Makes a mount point for a file of some kind, and opens it.
    fn make_point(
        share: BorrowedFd<'_>,
        name: String,
        kind: FileType,
    ) -> anyhow::Result<(Self, OwnedFd)> {
        let context = || format!("cannot make {name} in the share tree");
        let directory = match kind {
            FileType::Directory => true,
            FileType::RegularFile => false,
            // The guest would find a socket or a pipe there that nobody in the guest is behind.
            kind => bail!("a {kind:?} can't be shared with a VM; a file or a directory can"),
        };
        if directory {
            let mode = Mode::from_raw_mode(0o755);
            rustix::fs::mkdirat(share, &name, mode).with_context(context)?;
        } else {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            rustix::fs::openat(share, &name, flags, Mode::from_raw_mode(0o644))
                .with_context(context)?;
        }
        let made = Self { name: name.clone(), directory, mounted: false };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let point = rustix::fs::openat(share, &name, flags, Mode::empty()).with_context(context)?;
        Ok((made, point))
    }

    fn guest_path(&self) -> PathBuf {
        Path::new(runhcs_protocol::GUEST_SHARE).join(&self.name)
    }

    fn remove(&self) -> anyhow::Result<()> {
        let path = Path::new(SHARE).join(&self.name);
        if self.mounted {
            // The virtiofs daemon may still hold files in it for the guest.
            unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .with_context(|| format!("cannot unmount {}", path.display()))?;
        }
        // Never recursively: this was the mount point of somebody's files.
        if self.directory { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) }
            .with_context(|| format!("cannot remove {}", path.display()))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(error = format!("{error:#}"), "a share was not wholly removed");
        }
    }
}

/// Enters namespaces of its own, with nothing in that of mounts but the share tree at `share`,
/// read-only, and whatever is attached to it later. For the virtiofs daemon.
pub fn confine_to(share: &Path) -> anyhow::Result<()> {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    nix::sched::unshare(flags).context("cannot enter new namespaces")?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("cannot make the mount namespace a receiver")?;
    let flags = MountFlags::BIND
        | MountFlags::RDONLY
        | MountFlags::NOSUID
        | MountFlags::NODEV
        | MountFlags::NOEXEC;
    mount_remount(share, flags, c"").context("cannot make the share tree read-only")?;
    rustix::process::chdir(share).context("cannot change to the share tree")?;
    rustix::process::pivot_root(".", ".").context("cannot change the root to the share tree")?;
    unmount(".", UnmountFlags::DETACH).context("cannot let go of the host's mounts")?;
    rustix::process::chdir("/").context("cannot change to the new root")?;
    // Checked here because a mistake would show the host's files to the guest.
    let root = rustix::fs::statat(rustix::fs::CWD, "/..", AtFlags::empty())?;
    let here = rustix::fs::statat(rustix::fs::CWD, "/", AtFlags::empty())?;
    ensure!(
        (root.st_dev, root.st_ino) == (here.st_dev, here.st_ino),
        "the new root has a parent directory"
    );
    Ok(())
}
