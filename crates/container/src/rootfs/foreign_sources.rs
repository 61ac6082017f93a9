//! Sources of bind mounts that root of a container's user namespace can't reach, such as a directory
//! in another user's home: who creates the container can, and has the right to say so.
//!
//! They are opened with the creator's rights, but in the *container's* mount namespace, where the
//! kernel has locked what the host has mounted (mount_namespaces(7), "Restrictions on mount
//! namespaces"): the container can't take a mount off and look beneath it, or make one writable
//! that the host has read-only.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use runhcs_compute::Result;
use rustix::mount::MountPropagationFlags;

use super::id_mapped::IdMappedMounts;
use super::mount_attr;
use super::mounts::{Kind, PlannedMount, clone_tree};
use super::options::Bind;
use crate::channel::Channel;
use crate::child::Child;
use crate::clone::{Side, clone};
use crate::error::Context;
use crate::namespaces;

/// The mounts whose sources the creating process opens once the container has its namespaces.
#[derive(Debug, Default)]
pub(crate) struct ForeignSources(Vec<(usize, PathBuf, Bind)>);

impl ForeignSources {
    /// All bind mounts but those of what is in the container's root, which may be mounted there
    /// only when it is being assembled, and those that are mapped.
    pub(super) fn new(root: &Path, mounts: &[PlannedMount<'_>], mapped: &IdMappedMounts) -> Self {
        let foreign = mounts.iter().enumerate().filter_map(|(index, mount)| match mount.kind {
            Kind::Bind { source, bind } if !source.starts_with(root) && !mapped.has(index) => {
                Some((index, source.to_owned(), bind))
            }
            _ => None,
        });
        Self(foreign.collect())
    }

    /// Opens them in the mount namespace of process `pid`, for the other end of `channel`. The
    /// caller must have one thread only.
    pub(crate) fn open_for(&self, pid: u32, channel: &mut Channel) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let what = || "open the sources of bind mounts".to_owned();
        let namespace: OwnedFd = File::open(format!("/proc/{pid}/ns/mnt")).context(what)?.into();
        let (mut ours, mut theirs) = Channel::pair()?;
        // SAFETY: the engine and its callers start no thread before this point.
        let helper = match unsafe { clone(0, None) }.context(what)? {
            Side::Child => {
                drop(ours);
                if let Err(error) = self.give(&namespace, &mut theirs) {
                    theirs.fail(&error);
                }
                crate::init::exit();
            }
            Side::Parent { pid } => Child::new(pid),
        };
        drop(theirs);
        for (index, ..) in &self.0 {
            let tree = ours.descriptor().context(|| format!("mounts[{index}]"))?;
            channel.send_descriptor(tree).context(what)?;
        }
        drop(helper);
        Ok(())
    }

    fn give(&self, namespace: &OwnedFd, channel: &mut Channel) -> Result<()> {
        namespaces::join(libc::CLONE_NEWNS, "container's mount", namespace)?;
        for (_, source, bind) in &self.0 {
            let tree = clone_tree(source, *bind)?;
            let following = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            mount_attr::set_propagation(tree.as_fd(), following)
                .context(|| format!("set the propagation of {}", source.display()))?;
            channel.send_descriptor(tree).context(|| format!("pass {} on", source.display()))?;
        }
        Ok(())
    }

    /// What the creating process has opened, by the index in `mounts`.
    pub(crate) fn receive(&self, channel: &mut Channel) -> Result<Vec<(usize, OwnedFd)>> {
        self.0.iter().map(|(index, ..)| Ok((*index, channel.descriptor()?))).collect()
    }
}
