//! The VM's disks: block devices of the host, and files with the content of one, that containers
//! bring. Each is plugged in when the first container that has it is created, and out when the
//! last one is gone.
//!
//! They are behind one SCSI controller, because that is what takes disks while the VM runs on every
//! machine type (`docs/decisions/0016-disks-behind-a-controller.md`). The guest isn't told of them
//! by the controller but by the agent, which looks for a target when it is told to.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, bail, ensure};
use runhcs_protocol::guest;
use runhcs_protocol::shim::{Disk, DiskAccess};
use rustix::fs::FileType;
use tokio::sync::Mutex;

use crate::qemu::{Drive, Monitor, Sectors};

/// The disks of one VM.
pub struct Disks {
    monitor: Rc<Monitor>,
    /// Held while disks are plugged in and out.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    plugged: Vec<Plugged>,
    /// Where to begin to look for a free target, so that none is soon used again.
    next: u8,
}

struct Plugged {
    target: u8,
    identity: Identity,
    writable: bool,
    /// How many containers have it.
    users: usize,
}

/// What tells a disk from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    BlockDevice { number: u64 },
    File { device: u64, inode: u64 },
}

/// A container's disks, as long as it has them: to be given back to [`Disks::release`].
#[derive(Debug, Default)]
#[must_use = "disks stay plugged in until they are released"]
pub struct Uses(Vec<guest::Disk>);

impl Uses {
    /// What the guest is to be told.
    pub fn for_guest(&self) -> Vec<guest::Disk> {
        self.0.clone()
    }
}

impl Disks {
    /// None yet.
    pub fn new(monitor: Rc<Monitor>) -> Self {
        Self { monitor, state: Mutex::default() }
    }

    /// Plugs a container's disks in, but for those that are.
    ///
    /// # Errors
    /// The disk that can't be plugged in; then none is.
    pub async fn plug(&self, disks: Vec<(Disk, OwnedFd)>) -> anyhow::Result<Uses> {
        let mut state = self.state.lock().await;
        let mut uses = Uses::default();
        for (disk, file) in disks {
            match self.plug_one(&mut state, disk.access, file).await {
                Ok(target) => uses.0.push(guest::Disk { target, purpose: disk.purpose }),
                Err(error) => {
                    self.release_in(&mut state, uses).await;
                    return Err(error);
                }
            }
        }
        Ok(uses)
    }

    /// Gives a container's disks back. The guest has let go of them.
    pub async fn release(&self, uses: Uses) {
        self.release_in(&mut *self.state.lock().await, uses).await;
    }

    async fn plug_one(
        &self,
        state: &mut State,
        access: DiskAccess,
        file: OwnedFd,
    ) -> anyhow::Result<u8> {
        let (identity, sectors) = examine(&file)?;
        let writable = access != DiskAccess::ReadOnly;
        // Who only reads is held to that by the guest's control group.
        let known = |disk: &&mut Plugged| disk.identity == identity && disk.writable >= writable;
        if let Some(disk) = state.plugged.iter_mut().find(known) {
            disk.users += 1;
            return Ok(disk.target);
        }
        if access == DiskAccess::InUse {
            bail!(
                "a block device is in use on this host, by a mount for example; two kernels that \
                 write to it would destroy what it holds"
            );
        }
        let Some(target) = state.free_target() else {
            bail!("the VM has {} disks; it can't have more", state.plugged.len());
        };
        let drive = Drive {
            target,
            block_device: matches!(identity, Identity::BlockDevice { .. }),
            read_only: !writable,
            sectors,
        };
        self.monitor.plug(&drive, file.as_fd()).await.context("cannot plug a disk into the VM")?;
        tracing::info!(target, ?identity, writable, "a disk is plugged in");
        state.plugged.push(Plugged { target, identity, writable, users: 1 });
        state.next = target.wrapping_add(1);
        Ok(target)
    }

    async fn release_in(&self, state: &mut State, uses: Uses) {
        for guest::Disk { target, .. } in uses.0 {
            let position = state.plugged.iter().position(|disk| disk.target == target);
            let Some(position) = position else { continue };
            let disk = &mut state.plugged[position];
            disk.users -= 1;
            if disk.users > 0 {
                continue;
            }
            match self.monitor.unplug(target).await {
                Ok(()) => {
                    state.plugged.swap_remove(position);
                    tracing::info!(target, "a disk is plugged out");
                }
                // Its target stays taken, and who brings the same disk again finds it.
                Err(error) => {
                    tracing::warn!(target, error = format!("{error:#}"), "a disk stays in the VM");
                }
            }
        }
    }
}

impl State {
    fn free_target(&self) -> Option<u8> {
        let targets = (0..=u8::MAX).map(|offset| self.next.wrapping_add(offset));
        targets.into_iter().find(|target| self.plugged.iter().all(|disk| disk.target != *target))
    }
}

fn examine(file: &OwnedFd) -> anyhow::Result<(Identity, Sectors)> {
    let stat = rustix::fs::fstat(file).context("cannot examine a disk")?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => {
            let what = "cannot ask a block device for the size of its sectors";
            let logical = rustix::fs::ioctl_blksszget(file).context(what)?;
            let physical = rustix::fs::ioctl_blkpbszget(file).context(what)?;
            let sectors = Sectors { logical, physical };
            Ok((Identity::BlockDevice { number: stat.st_rdev }, sectors))
        }
        FileType::RegularFile => {
            ensure!(stat.st_size > 0, "a disk's image is empty");
            let identity = Identity::File { device: stat.st_dev, inode: stat.st_ino };
            Ok((identity, Sectors { logical: 512, physical: 4096 }))
        }
        kind => bail!("a {kind:?} is no disk"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugged(target: u8) -> Plugged {
        let identity = Identity::BlockDevice { number: target.into() };
        Plugged { target, identity, writable: true, users: 1 }
    }

    #[test]
    fn a_target_is_not_soon_used_again() {
        let mut state = State { plugged: vec![plugged(254), plugged(0)], next: 254 };
        assert_eq!(state.free_target(), Some(255));
        state.next = 0;
        assert_eq!(state.free_target(), Some(1));
        state.plugged = (0..=255).map(plugged).collect();
        assert_eq!(state.free_target(), None);
    }

    #[test]
    fn only_what_has_content_is_a_disk() {
        let error = |path: &str| {
            let file = std::fs::File::open(path).unwrap();
            examine(&file.into()).unwrap_err().to_string()
        };
        assert!(error("/dev/null").contains("CharacterDevice is no disk"));
        assert!(error("/").contains("Directory is no disk"));
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(error(empty.path().to_str().unwrap()).contains("is empty"));
    }
}
