//! A container's view of the file system: assembled in its own mount namespace, then made its root.

mod devices;
mod file_system;
mod foreign_sources;
mod id_mapped;
mod masks;
pub(crate) mod mount_attr;
mod mount_table;
pub(crate) mod mounts;
mod old_root;
pub(crate) mod options;
mod propagation;
pub(crate) mod resolve;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use runhcs_compute::Result;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::cgroups::Cgroup;
use crate::error::{Context, invalid};
use crate::labels::{self, TakesContext};
use devices::Device;
use foreign_sources::ForeignSources;
use id_mapped::IdMappedMounts;
pub(crate) use id_mapped::Trees;
pub use id_mapped::map_mount;
pub(crate) use mount_table::mount_of_type;
use mounts::{Kernel, Kind, PlannedMount, clone_tree, move_to};
use options::{Attributes, Bind, attr};
use propagation::Propagation;
use resolve::Root;

/// What a container's file system is to be.
#[derive(Debug)]
pub(crate) struct RootPlan<'a> {
    path: PathBuf,
    read_only: bool,
    propagation: Propagation,
    mounts: Vec<PlannedMount<'a>>,
    id_mapped: IdMappedMounts,
    /// Empty unless the container's own rights differ from its creator's.
    pub(crate) foreign: ForeignSources,
    devices: Vec<Device>,
    masked: &'a [String],
    protected: &'a [String],
    label: Option<&'a str>,
    host_dev: bool,
}

impl<'a> RootPlan<'a> {
    /// Reads `root`, `mounts` and what `linux` says of devices, masks and propagation.
    ///
    /// `foreign` is whether the container gets a mount namespace of another user namespace, whose
    /// root can't reach all that the caller can.
    pub(crate) fn new(spec: &'a Spec, foreign: bool) -> Result<Self> {
        let root = spec.root().as_ref().ok_or_else(|| invalid("root", "is missing"))?;
        let linux = spec.linux().as_ref();
        let mounts = spec.mounts().iter().flatten().enumerate();
        let mut mounts: Vec<_> =
            mounts.map(|(i, m)| PlannedMount::new(i, m, root.path())).collect::<Result<_>>()?;
        let label = labels::of_mounts(linux)?;
        if let Some(label) = label {
            mounts.iter_mut().for_each(|mount| mount.label(label));
        }
        let host_dev = mounts.iter().any(|mount| {
            mount.destination == Path::new("/dev") && matches!(mount.kind, Kind::Bind { .. })
        });
        // With a user namespace of its own, init may not map ids.
        let late_within = (!foreign).then_some(root.path().as_path());
        let id_mapped = IdMappedMounts::new(spec, &mounts, late_within)?;
        let foreign = match foreign {
            true => ForeignSources::new(root.path(), &mounts, &id_mapped),
            false => ForeignSources::default(),
        };
        Ok(Self {
            path: root.path().clone(),
            foreign,
            read_only: root.readonly().unwrap_or(false),
            propagation: Propagation::parse(linux.and_then(|l| l.rootfs_propagation().as_deref()))?,
            id_mapped,
            mounts,
            devices: devices::plan(spec)?,
            masked: linux.and_then(|l| l.masked_paths().as_deref()).unwrap_or_default(),
            protected: linux.and_then(|l| l.readonly_paths().as_deref()).unwrap_or_default(),
            label,
            host_dev,
        })
    }

    /// Whether the container's control groups are mounted so that they can be written.
    pub(crate) fn has_writable_cgroups(&self) -> bool {
        self.mounts.iter().any(|mount| {
            mount.kind == Kind::Cgroup && mount.options.attributes.set & attr::RDONLY == 0
        })
    }

    /// Where it is assembled.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens what only the creating process can open.
    pub(crate) fn open(&self) -> Result<Trees> {
        self.id_mapped.open()
    }

    /// Assembles the tree at the root's path, with what [`RootPlan::open`] has opened. The caller
    /// is in the container's new mount namespace; `settle` puts it into the container's control
    /// groups before anything is done there that is theirs to limit or to show, and is asked for
    /// more than once.
    pub(crate) fn assemble(
        &self,
        cgroup: &Cgroup,
        trees: &Trees,
        may_mknod: bool,
        mut settle: impl FnMut() -> Result<()>,
    ) -> Result<Assembled> {
        self.propagation.prepare(&self.path)?;
        // pivot_root(2) wants a mount, and its parent must not be shared.
        let tree = clone_tree(&self.path, Bind::Recursive)?;
        let below = Root::open(&self.path)?;
        move_to(&tree, &below).context(|| format!("mount the root {}", self.path.display()))?;
        let mut root = Root::from(tree);
        self.propagation.begin(&root)?;
        let mut kernel = Vec::new();
        let mut read_only_later = Vec::new();
        for (index, mount) in self.mounts.iter().enumerate() {
            if mount.concerns_cgroups() {
                settle()?;
            }
            let made = match (&mount.kind, trees.get(index)) {
                (Kind::Cgroup, _) => cgroup.mount(&root, mount).map(|()| None),
                (_, Some(tree)) => mount.attach_tree(&root, tree).map(|()| None),
                _ => match self.id_mapped.open_late(index, trees)? {
                    Some(tree) => mount.attach_tree(&root, &tree).map(|()| None),
                    None => mount.make(&root).map(Some),
                },
            };
            let made = made.context(|| format!("mounts[{index}]"))?;
            if mount.covers_root() {
                // The process, and what is mounted next, is to be in what is there now.
                root = Root::open(&self.path)?;
            }
            let Some(made) = made else { continue };
            if let (Some(label), TakesContext::OnRoot) = (self.label, mount.takes_context()) {
                labels::set_on_root(made.as_fd(), label).context(|| format!("mounts[{index}]"))?;
            }
            let of = Kernel::of(&made);
            if of.context(|| format!("look at {}", mount.destination.display()))?.is_some() {
                kernel.push((mount.destination.to_path_buf(), Root::from(made)));
            } else if mount.is_read_only_later() {
                read_only_later.push((mount.destination.to_path_buf(), made));
            }
        }
        settle()?;
        if !self.host_dev {
            // So that devices have the very mode they are to have.
            let umask = rustix::process::umask(Mode::empty());
            for device in &self.devices {
                device.make(&root, may_mknod)?;
            }
            rustix::process::umask(umask);
            devices::link(&root)?;
        }
        Ok(Assembled { root, kernel, read_only_later })
    }

    /// Makes the assembled tree the process's root and lets go of the old one.
    pub(crate) fn enter(&self, assembled: &Assembled, no_pivot: bool) -> Result<()> {
        rustix::process::fchdir(&assembled.root)
            .context(|| format!("enter {}", self.path.display()))?;
        if no_pivot {
            let path = std::env::current_dir().context(|| "find the root's path".into())?;
            old_root::remove_kernel_mounts(&path)?;
            rustix::mount::mount_move(".", "/").context(|| "move the root to /".into())?;
            rustix::process::chroot(".").context(|| "chroot".into())?;
        } else {
            let old = Root::open(Path::new("/"))?;
            // Put the old root on top of the new one and detach it: needs no directory in the
            // image (pivot_root(2), "pivot_root(\".\", \".\")").
            rustix::process::pivot_root(".", ".")
                .context(|| format!("pivot_root to {}", self.path.display()))?;
            // Of the old one alone: in the new one, mounts may be shared that are to be.
            rustix::process::fchdir(&old).context(|| "go back to the old root".into())?;
            rustix::mount::mount_change(
                ".",
                rustix::mount::MountPropagationFlags::DOWNSTREAM
                    | rustix::mount::MountPropagationFlags::REC,
            )
            .context(|| "detach from the old root's propagation".into())?;
            rustix::mount::unmount(".", UnmountFlags::DETACH)
                .context(|| "detach the old root".into())?;
        }
        rustix::process::chdir("/").context(|| "enter the new root".into())?;
        self.propagation.end()
    }

    /// Makes the working directory if it is missing, while the root can be written to. What else is
    /// wrong with it shows when it is entered.
    pub(crate) fn make_working_directory(&self, assembled: &Assembled, cwd: &Path) -> Result<()> {
        if cwd == Path::new("/") {
            return Ok(());
        }
        match assembled.root.open_at(cwd, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {
                assembled.root.directory(cwd).context(|| "process.cwd".into()).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Takes away what the container must not see or change. Runs in the new root.
    pub(crate) fn protect(&self, assembled: &Assembled) -> Result<()> {
        if !self.masked.is_empty() {
            let null = masks::null_device(&assembled.root)?;
            masks::mask(assembled, self.masked, &null, self.label)?;
        }
        masks::make_read_only(assembled, self.protected)?;
        for (destination, mount) in &assembled.read_only_later {
            let change = Attributes { set: attr::RDONLY, clear: 0 };
            mount_attr::set(mount.as_fd(), change, false)
                .context(|| format!("make {} read-only", destination.display()))?;
        }
        if self.read_only {
            let change = Attributes { set: attr::RDONLY, clear: 0 };
            mount_attr::set(assembled.root.as_fd(), change, false)
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
    /// The mounts that get things put into them before they are made read-only, with their places.
    read_only_later: Vec<(PathBuf, OwnedFd)>,
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
