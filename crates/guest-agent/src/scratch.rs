//! A container's scratch disk: what is written to the root file system goes to a file system on it
//! (overlayfs), and the shared root file system stays as it is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::Spec;
use runhcs_protocol::guest::Failure;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::volumes::Volume;

/// The writable layer's directories on the disk.
const UPPER: &str = "upper";
const WORK: &str = "work";

/// The mounts of a scratch disk; unmounted, newest first, when dropped.
#[derive(Debug)]
pub struct Scratch {
    _overlay: Mounted,
    _disk: Mounted,
    /// The shared root file system, which is a mount of its own.
    _lower: Volume,
}

impl Scratch {
    /// Mounts the disk and puts its layer over the root file system of `spec`, whose path is
    /// replaced. `directory` is the container's own.
    ///
    /// # Errors
    /// A disk without an ext4 file system; a root file system that can't be a lower layer.
    pub fn mount(
        node: &Path,
        spec: &mut Spec,
        directory: &Path,
    ) -> std::result::Result<Self, Failure> {
        let Some(root) = spec.root_mut() else {
            return Err(Failure::Other(vec!["the configuration has no root".to_owned()]));
        };
        let lower = Volume::mount(root.path())?;
        let mounted = mount_over(node, root.path(), directory)
            .map_err(|error| Failure::from_error(error.as_ref()))?;
        let (disk, overlay) = mounted;
        root.set_path(overlay.0.clone());
        Ok(Self { _overlay: overlay, _disk: disk, _lower: lower })
    }
}

/// Mounts the disk, and its layer over `lower`.
fn mount_over(node: &Path, lower: &Path, directory: &Path) -> Result<(Mounted, Mounted)> {
    let disk = directory.join("scratch");
    let overlay = directory.join("rootfs");
    for path in [&disk, &overlay] {
        std::fs::create_dir(path).with_context(|| format!("make {}", path.display()))?;
    }
    mount(node, &disk, "ext4", MountFlags::NOATIME, c"").context(
        "mount the scratch disk: it has to hold an ext4 file system, as `runhcs prepare-disk` \
             makes it",
    )?;
    let disk = Mounted(disk);
    let [upper, work] = [UPPER, WORK].map(|name| disk.0.join(name));
    for path in [&upper, &work] {
        make_directory(path)?;
    }
    copy_owner_and_mode(lower, &upper)?;
    let options = layers(&[("lowerdir", lower), ("upperdir", &upper), ("workdir", &work)])?;
    mount("runhcs-scratch", &overlay, "overlay", MountFlags::empty(), options.as_c_str())
        .context("put the scratch disk's layer over the root file system")?;
    Ok((disk, Mounted(overlay)))
}

/// A kept disk has its directories already.
fn make_directory(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("make {} on the scratch disk", path.display()))
        }
        _ => Ok(()),
    }
}

/// The root directory is the upper layer's, so it must be as the lower layer has it.
fn copy_owner_and_mode(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("give {} the owner and mode of {}", to.display(), from.display());
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let [from_directory, to_directory] =
        [from, to].map(|path| rustix::fs::open(path, flags, Mode::empty()));
    let (from_directory, to_directory) =
        (from_directory.with_context(what)?, to_directory.with_context(what)?);
    let stat = rustix::fs::fstat(&from_directory).with_context(what)?;
    let (uid, gid) =
        (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&to_directory, Some(uid), Some(gid)).with_context(what)?;
    rustix::fs::fchmod(&to_directory, Mode::from_raw_mode(stat.st_mode & 0o7777)).with_context(what)
}

/// overlayfs's options. Its paths can't hold a comma; the agent's never do.
fn layers(layers: &[(&str, &Path)]) -> Result<std::ffi::CString> {
    let mut words = Vec::new();
    for (name, path) in layers {
        let path = path.to_str().context("a layer's path is not UTF-8")?;
        ensure!(!path.contains([',', ':', '\\']), "a layer can't be at {path}");
        words.push(format!("{name}={path}"));
    }
    Ok(std::ffi::CString::new(words.join(","))?)
}

/// A mount of the agent's.
#[derive(Debug)]
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // At once, so that all is written when the disk goes. What still holds it, a process that
        // is being started and has the agent's mounts, lets go of it soon.
        if let Ok(directory) = std::fs::File::open(&self.0) {
            let _ = rustix::fs::syncfs(&directory);
        }
        let outcome = match unmount(&self.0, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => unmount(&self.0, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
            outcome => outcome,
        };
        if let Err(error) = outcome {
            tracing::warn!("cannot unmount {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_can_not_be_smuggled_in_by_a_path() {
        let text = layers(&[("lowerdir", Path::new("/a")), ("upperdir", Path::new("/b"))]).unwrap();
        assert_eq!(text.as_bytes(), b"lowerdir=/a,upperdir=/b");
        for path in ["/a,upperdir=/b", "/a:b", "/a\\"] {
            assert!(layers(&[("lowerdir", Path::new(path))]).is_err(), "{path}");
        }
    }
}
