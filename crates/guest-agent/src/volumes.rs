//! The volumes of this VM's containers: parts of the shared file system that are mounts of their
//! own on the host.
//!
//! The guest's kernel makes a mount of each when a path first leads into it, in whichever mount
//! namespace that happens, and a file system of its own each time. Containers that are to meet in
//! a volume (locks, sockets, shared memory) need it to be the same one. So the agent makes the
//! mount before they take their copy of its namespace, and unmounts it when the last one is gone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use oci_spec::runtime::Spec;
use runhcs_protocol::GUEST_SHARE;
use runhcs_protocol::guest::Failure;
use rustix::mount::UnmountFlags;

use crate::inner_mounts;

/// Volumes that are in use.
#[derive(Debug, Default)]
pub struct Volumes(RefCell<HashMap<PathBuf, Weak<Volume>>>);

/// A volume's mount in the agent's namespace; unmounted when dropped.
#[derive(Debug)]
pub struct Volume(PathBuf);

impl Volumes {
    /// Mounts the sources of a container's bind mounts, but for those that are mounted, and what
    /// the host has mounted in them and in the root file system: at `inner`. They are needed for as
    /// long as the container exists.
    ///
    /// # Errors
    /// A source that isn't there.
    pub fn of(&self, spec: &Spec, inner: &[PathBuf]) -> Result<Vec<Rc<Volume>>, Failure> {
        let mut known = self.0.borrow_mut();
        known.retain(|_, volume| volume.strong_count() > 0);
        let sources = spec.mounts().iter().flatten().filter_map(|mount| mount.source().as_deref());
        let mut volumes = Vec::new();
        for source in sources.filter(|source| source.starts_with(GUEST_SHARE)) {
            if let Some(volume) = known.get(source).and_then(Weak::upgrade) {
                volumes.push(volume);
                continue;
            }
            let volume = Rc::new(Volume::mount(source)?);
            known.insert(source.to_owned(), Rc::downgrade(&volume));
            volumes.push(volume);
        }
        let root = spec.root().as_ref().map(|root| root.path().as_path());
        if let Some(root) = root.filter(|root| inner.iter().any(|point| point.starts_with(root))) {
            volumes.push(Rc::new(Volume::mount(root)?));
        }
        for point in inner {
            if let Err(error) = inner_mounts::make(point) {
                // Another file system may hide it, or it has gone meanwhile.
                tracing::debug!("nothing is mounted at {}: {error}", point.display());
            }
        }
        Ok(volumes)
    }
}

impl Volume {
    /// Has the guest's kernel mount it, if it is a mount of its own.
    ///
    /// # Errors
    /// If it isn't there.
    pub fn mount(path: &Path) -> Result<Self, Failure> {
        // Of the calls that look at a file without opening it, this one has it mounted (statfs(2)
        // has no AT_NO_AUTOMOUNT as statx(2) has).
        match rustix::fs::statfs(path) {
            Ok(_) => Ok(Self(path.to_owned())),
            Err(error) => Err(Failure::Other(vec![
                format!("look into the volume {}", path.display()),
                error.to_string(),
            ])),
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        match rustix::mount::unmount(&self.0, flags) {
            // Nothing is mounted: on the host it is part of a greater mount.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => tracing::warn!("cannot unmount {}: {error}", self.0.display()),
        }
    }
}
