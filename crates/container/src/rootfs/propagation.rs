//! `linux.rootfsPropagation`: whether mounts appear in the container that are made outside of it
//! later, and the other way round (mount_namespaces(7), "Shared subtrees").

use std::os::fd::AsFd;
use std::path::Path;

use runhcs_compute::Result;
use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::mount::{MountPropagationFlags, mount_change};

use super::mount_table::MountTable;
use crate::error::{Context, invalid};

/// How mounts spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// Into the container only.
    Slave,
    /// Not at all; the flags say how strictly.
    None(MountPropagationFlags),
    /// Both ways, below mounts that say so themselves.
    Shared,
}

impl Propagation {
    pub(crate) fn parse(text: Option<&str>) -> Result<Self> {
        use MountPropagationFlags as P;
        Ok(match text {
            None | Some("" | "slave" | "rslave") => Self::Slave,
            Some("private") => Self::None(P::PRIVATE),
            Some("rprivate") => Self::None(P::PRIVATE | P::REC),
            Some("unbindable") => Self::None(P::UNBINDABLE),
            Some("runbindable") => Self::None(P::UNBINDABLE | P::REC),
            Some("shared" | "rshared") => Self::Shared,
            Some(other) => {
                let why = format!("{other:?} is none of shared, slave, private and unbindable");
                return Err(invalid("linux.rootfsPropagation", why));
            }
        })
    }

    /// Prepares the container's new mount namespace: what is mounted in it must not reach the
    /// caller's, unless it is to.
    pub(crate) fn prepare(self, root: &Path) -> Result<()> {
        use MountPropagationFlags as P;
        let what = || "set the propagation of /".to_owned();
        match self {
            Self::Slave | Self::None(_) => mount_change("/", P::DOWNSTREAM | P::REC).context(what),
            // The root itself is to be mounted for the container alone.
            Self::Shared => {
                let mount = mount_point(root).context(what)?;
                mount_change(&mount, P::PRIVATE)
                    .context(|| format!("make the mount {mount} private"))
            }
        }
    }

    /// Sets that of the new root, before anything is mounted in it.
    pub(crate) fn begin(self, root: impl AsFd) -> Result<()> {
        let Self::None(flags) = self else { return Ok(()) };
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&root.as_fd()));
        mount_change(path, flags).context(|| "set the propagation of the root".into())
    }

    /// Sets what pivot_root(2) doesn't allow before. The caller is in the new root.
    pub(crate) fn end(self) -> Result<()> {
        match self {
            Self::Shared => mount_change("/", MountPropagationFlags::SHARED)
                .context(|| "set the propagation of the root".into()),
            Self::Slave | Self::None(_) => Ok(()),
        }
    }
}

/// Where the mount is mounted that a path is on.
fn mount_point(path: &Path) -> std::io::Result<String> {
    let mount = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id;
    let table = MountTable::read()?;
    let point = table.0.into_iter().find(|each| each.id == mount).map(|each| each.point);
    point.ok_or_else(|| std::io::Error::other("its mount is not listed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_and_nonsense_named() {
        let parse = |text: &str| Propagation::parse(Some(text));
        for kind in ["shared", "slave", "private", "unbindable"] {
            assert_eq!(parse(kind).is_ok(), parse(&format!("r{kind}")).is_ok(), "{kind}");
        }
        assert_eq!(parse("").unwrap(), Propagation::Slave);
        assert_eq!(parse("x").unwrap_err().to_string(), "linux.rootfsPropagation");
    }

    #[test]
    fn the_mount_of_a_path_is_found() {
        assert_eq!(mount_point(Path::new("/proc/self")).unwrap(), "/proc");
    }
}
