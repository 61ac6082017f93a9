//! The share tree: a private tmpfs on which the file trees of the pod's containers are mounted,
//! and which the guest sees.
//!
//! ```text
//! /            tmpfs, the shim's root, in a mount namespace of its own
//! /share       tmpfs, shared with the virtiofs daemon's namespace, where it is read-only
//! /share/<n>/rootfs        a container's root file system
//! /share/<n>/mounts/<i>    the source of its i-th shared mount
//! ```
//!
//! Nothing of this is on the host: the trees come as detached mounts, and with the shim's
//! namespace everything is gone, however the shim ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use nix::sched::CloneFlags;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount, mount_change,
    mount_remount, move_mount, unmount,
};

use crate::detached::{make_private, make_read_only};

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

impl Namespace {
    /// Enters a new mount namespace and prepares the share tree in it, over `mount_point`, which
    /// is any directory: the host doesn't see what is mounted there.
    pub fn enter(mount_point: &Path) -> anyhow::Result<Self> {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS)
            .context("cannot enter a new mount namespace; the VM shim has to run as root")?;
        // Our mounts don't reach the host, but what the host unmounts isn't kept alive by us.
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .context("cannot detach the mount namespace from the host's")?;
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
        Ok(ShareTree { share, next: 1 })
    }
}

/// The tree the guest sees.
#[derive(Debug)]
pub struct ShareTree {
    share: OwnedFd,
    next: u64,
}

/// A tree to be shared.
#[derive(Debug)]
pub struct Tree {
    /// The detached mount.
    pub mount: OwnedFd,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

impl ShareTree {
    /// Shares a container's trees: its root file system and its mounts' sources. Undone when the
    /// result is dropped, and if anything fails.
    pub fn attach(&mut self, rootfs: Tree, mounts: Vec<Tree>) -> anyhow::Result<Shared> {
        let name = self.next.to_string();
        self.next += 1;
        let mut shared = Shared { name, count: mounts.len(), points: vec![] };
        let dir = shared.make_dir(self.share.as_fd(), "")?;
        shared.mount(dir.as_fd(), "rootfs", rootfs)?;
        let dir = shared.make_dir(dir.as_fd(), "mounts")?;
        for (index, tree) in mounts.into_iter().enumerate() {
            shared.mount(dir.as_fd(), &format!("mounts/{index}"), tree)?;
        }
        Ok(shared)
    }
}

/// A container's shared trees.
#[derive(Debug)]
pub struct Shared {
    name: String,
    count: usize,
    /// What was made in the share tree, in order.
    points: Vec<Point>,
}

#[derive(Debug)]
struct Point {
    path: PathBuf,
    directory: bool,
    mounted: bool,
}

impl Shared {
    /// Where the guest sees the root file system.
    pub fn guest_rootfs(&self) -> PathBuf {
        Path::new(runhcs_protocol::GUEST_SHARE).join(&self.name).join("rootfs")
    }

    /// Where the guest sees the source of each shared mount.
    pub fn guest_mounts(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let dir = Path::new(runhcs_protocol::GUEST_SHARE).join(&self.name).join("mounts");
        (0..self.count).map(move |index| dir.join(index.to_string()))
    }

    /// Makes the container's directory (`name` is empty) or one below it, and opens it.
    fn make_dir(&mut self, parent: BorrowedFd<'_>, name: &str) -> anyhow::Result<OwnedFd> {
        let file_name = match name.rsplit('/').next() {
            Some(file_name) if !file_name.is_empty() => file_name,
            _ => &self.name,
        };
        let context = || format!("cannot make {file_name} in the share tree");
        rustix::fs::mkdirat(parent, file_name, Mode::from_raw_mode(0o755)).with_context(context)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir =
            rustix::fs::openat(parent, file_name, flags, Mode::empty()).with_context(context)?;
        self.made(name, true);
        Ok(dir)
    }

    fn make_file(&mut self, parent: BorrowedFd<'_>, path: &str) -> anyhow::Result<OwnedFd> {
        let file_name = path.rsplit('/').next().unwrap_or(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, file_name, flags, Mode::from_raw_mode(0o644))
            .with_context(|| format!("cannot make {file_name} in the share tree"))?;
        self.made(path, false);
        Ok(file)
    }

    fn made(&mut self, name: &str, directory: bool) {
        let path = Path::new(SHARE).join(&self.name).join(name);
        self.points.push(Point { path, directory, mounted: false });
    }

    /// Mounts a tree as `name` in the container's directory `dir`.
    fn mount(&mut self, dir: BorrowedFd<'_>, name: &str, tree: Tree) -> anyhow::Result<()> {
        make_private(tree.mount.as_fd())
            .with_context(|| format!("cannot make {name} a mount of its own"))?;
        if tree.read_only {
            // The guest isn't trusted to keep it so. Done before it is attached, because the
            // virtiofs daemon gets a copy of the mount as it is then.
            make_read_only(tree.mount.as_fd())
                .with_context(|| format!("cannot make {name} read-only"))?;
        }
        let stat = rustix::fs::fstat(&tree.mount).context("cannot examine a tree to be shared")?;
        let point = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.make_dir(dir, name)?,
            FileType::RegularFile => self.make_file(dir, name)?,
            // The guest would find a socket or a pipe there that nobody in the guest is behind.
            kind => bail!("a {kind:?} can't be shared with a VM; a file or a directory can"),
        };
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree.mount, "", &point, "", flags)
            .with_context(|| format!("cannot attach {name} to the share tree"))?;
        let Some(last) = self.points.last_mut() else { bail!("{name} has no mount point") };
        last.mounted = true;
        Ok(())
    }

    fn detach(&mut self) -> anyhow::Result<()> {
        while let Some(Point { path, directory, mounted }) = self.points.pop() {
            if mounted {
                // The virtiofs daemon may still hold files in it for the guest.
                unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                    .with_context(|| format!("cannot unmount {}", path.display()))?;
            }
            // One by one and never recursively: these are mount points of somebody's files.
            if directory { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) }
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            tracing::warn!(error = format!("{error:#}"), "a share was not wholly removed");
        }
    }
}

/// Enters a mount namespace in which there is nothing but the share tree at `share`, read-only,
/// and whatever is attached to it later. For the virtiofs daemon.
pub fn confine_to(share: &Path) -> anyhow::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).context("cannot enter a new mount namespace")?;
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
