//! A container's view of the file system: assembled in its own mount namespace, then made its root.

mod devices;
mod masks;
pub(crate) mod mount_attr;
pub(crate) mod mounts;
pub(crate) mod options;
pub(crate) mod resolve;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use runhcs_compute::Result;
use rustix::fs::Mode;
use rustix::mount::UnmountFlags;

use crate::cgroups::Cgroup;
use crate::error::{Context, invalid};
use devices::Device;
use mounts::{Kernel, Kind, PlannedMount, clone_tree, move_to};
use options::{Attributes, Bind, attr};
use resolve::Root;

/// What a container's file system is to be.
#[derive(Debug)]
pub(crate) struct RootPlan<'a> {
    path: PathBuf,
    read_only: bool,
    propagation: Option<&'a str>,
    mounts: Vec<PlannedMount<'a>>,
    devices: Vec<Device>,
    masked: &'a [String],
    protected: &'a [String],
    host_dev: bool,
}

impl<'a> RootPlan<'a> {
    /// Reads `root`, `mounts` and what `linux` says of devices, masks and propagation.
    pub(crate) fn new(spec: &'a Spec) -> Result<Self> {
        let root = spec.root().as_ref().ok_or_else(|| invalid("root", "is missing"))?;
        let linux = spec.linux().as_ref();
        let mounts = spec.mounts().iter().flatten().enumerate();
        let mounts: Vec<_> = mounts.map(|(i, m)| PlannedMount::new(i, m)).collect::<Result<_>>()?;
        let host_dev = mounts.iter().any(|mount| {
            mount.destination == Path::new("/dev") && matches!(mount.kind, Kind::Bind { .. })
        });
        Ok(Self {
            path: root.path().clone(),
            read_only: root.readonly().unwrap_or(false),
            propagation: linux.and_then(|l| l.rootfs_propagation().as_deref()),
            mounts,
            devices: devices::plan(spec)?,
            masked: linux.and_then(|l| l.masked_paths().as_deref()).unwrap_or_default(),
            protected: linux.and_then(|l| l.readonly_paths().as_deref()).unwrap_or_default(),
            host_dev,
        })
    }

    /// Where it is assembled.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Assembles the tree at the root's path. The caller is in the container's new mount
    /// namespace.
    pub(crate) fn assemble(&self, cgroup: &Cgroup, may_mknod: bool) -> Result<Assembled> {
        mounts::set_root_propagation(self.propagation)?;
        // pivot_root(2) wants a mount, and its parent must not be shared.
        let tree = clone_tree(&self.path, Bind::Recursive)?;
        let below = Root::open(&self.path)?;
        move_to(&tree, &below).context(|| format!("mount the root {}", self.path.display()))?;
        let root = Root::from(tree);
        let mut kernel = Vec::new();
        for mount in &self.mounts {
            if mount.kind == Kind::Cgroup {
                cgroup.mount(&root, mount)?;
                continue;
            }
            let made = mount.make(&root)?;
            let of = Kernel::of(&made);
            if of.context(|| format!("look at {}", mount.destination.display()))?.is_some() {
                kernel.push((mount.destination.to_owned(), Root::from(made)));
            }
        }
        if !self.host_dev {
            // So that devices have the very mode they are to have.
            let umask = rustix::process::umask(Mode::empty());
            for device in &self.devices {
                device.make(&root, may_mknod)?;
            }
            rustix::process::umask(umask);
            devices::link(&root)?;
        }
        Ok(Assembled { root, kernel })
    }

    /// Makes the assembled tree the process's root and lets go of the old one.
    pub(crate) fn enter(&self, assembled: &Assembled, no_pivot: bool) -> Result<()> {
        rustix::process::fchdir(&assembled.root)
            .context(|| format!("enter {}", self.path.display()))?;
        if no_pivot {
            rustix::mount::mount_move(".", "/").context(|| "move the root to /".into())?;
            rustix::process::chroot(".").context(|| "chroot".into())?;
        } else {
            // Put the old root on top of the new one and detach it: needs no directory in the
            // image (pivot_root(2), "pivot_root(\".\", \".\")").
            rustix::process::pivot_root(".", ".")
                .context(|| format!("pivot_root to {}", self.path.display()))?;
            rustix::mount::mount_change(
                ".",
                rustix::mount::MountPropagationFlags::DOWNSTREAM
                    | rustix::mount::MountPropagationFlags::REC,
            )
            .context(|| "detach from the old root's propagation".into())?;
            rustix::mount::unmount(".", UnmountFlags::DETACH)
                .context(|| "detach the old root".into())?;
        }
        rustix::process::chdir("/").context(|| "enter the new root".into())
    }

    /// Takes away what the container must not see or change. Runs in the new root.
    pub(crate) fn protect(&self, assembled: &Assembled) -> Result<()> {
        if !self.masked.is_empty() {
            let null = masks::null_device(&assembled.root)?;
            masks::mask(assembled, self.masked, &null)?;
        }
        masks::make_read_only(assembled, self.protected)?;
        if self.read_only {
            let change = Attributes { set: attr::RDONLY, clear: 0 };
            mount_attr::set(std::os::fd::AsFd::as_fd(&assembled.root), change, false)
                .context(|| "make the root read-only".into())?;
        }
        Ok(())
    }
}

/// A tree that was assembled.
#[derive(Debug)]
pub(crate) struct Assembled {
    root: Root,
    /// The mounts of procfs and sysfs, with their places.
    kernel: Vec<(PathBuf, Root)>,
}

impl Assembled {
    /// What is at `path`; `None` if nothing is.
    ///
    /// What lies in procfs or sysfs is looked up in the mount itself: who can rename directories
    /// of the image meanwhile, as a container with the same image can, could otherwise have
    /// another directory in the mount's place for just as long.
    fn find(&self, path: &Path) -> Result<Option<OwnedFd>> {
        // Of several mounts at one place the last is the one that is seen.
        for (place, mount) in self.kernel.iter().rev() {
            if let Ok(below) = path.strip_prefix(place) {
                return mount.find(&Path::new("/").join(below));
            }
        }
        self.root.find(path)
    }
}

/// Changes the attributes of one mount.
pub(crate) fn set_attributes(
    mount: std::os::fd::BorrowedFd<'_>,
    attributes: Attributes,
) -> std::io::Result<()> {
    mount_attr::set(mount, attributes, false)
}

/// Mounts a terminal over the container's `/dev/console`. A link of the image's there could have
/// it mounted over something that is to be protected (CVE-2025-52565).
pub(crate) fn bind_console(slave: &OwnedFd) -> Result<()> {
    let root = Root::open(Path::new("/"))?;
    masks::bind_over(slave, &root.plain_file(Path::new("/dev/console"))?)
        .context(|| "mount the terminal over /dev/console".into())
}
