//! QEMU's root directory: a tmpfs that shows what it needs to start, read-only, and nothing at all
//! once the guest is up and before anything in it can be hostile.
//!
//! It is built in the shim's mount namespace and shared with QEMU's, so what is unmounted here
//! is unmounted there (mount_namespaces(7)).

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, move_mount, open_tree, unmount,
};

use crate::detached;

/// Where QEMU finds the guest's kernel.
pub const KERNEL: &str = "/kernel";
/// Where QEMU finds the guest's initramfs.
pub const INITRAMFS: &str = "/initramfs";
/// Where QEMU finds the guest's memory, if that is given to it.
pub const MEMORY: &str = "/memory/ram";

/// What programs and their libraries are made of (hier(7)); most are links into `/usr` on many
/// systems.
const SYSTEM: [&str; 5] = ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache"];

/// Bounds of the tmpfs, which holds mount points alone.
const OPTIONS: &std::ffi::CStr = c"mode=0755,size=64k,nr_inodes=64";

/// The directory while it shows something.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    shown: Vec<PathBuf>,
}

impl Root {
    /// Makes it at `path`, in this process's own mount namespace, for the program `qemu` and these
    /// files of the guest. `device` is a device that QEMU may use.
    pub fn build(
        path: PathBuf,
        qemu: &Path,
        kernel: &Path,
        initramfs: &Path,
        device: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let what = "cannot make QEMU's root directory";
        std::fs::create_dir(&path).context(what)?;
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        mount("runhcs-qemu", &path, "tmpfs", flags, Some(OPTIONS)).context(what)?;
        mount_change(&path, MountPropagationFlags::SHARED).context(what)?;
        let mut root = Self { path, shown: Vec::new() };
        for system in SYSTEM {
            root.show_system(Path::new(system))?;
        }
        let program = qemu.canonicalize().with_context(|| format!("no {}", qemu.display()))?;
        for place in [qemu, program.as_path()] {
            root.show_top(place)?;
        }
        root.show(kernel, Path::new(KERNEL), false)?;
        root.show(initramfs, Path::new(INITRAMFS), false)?;
        if let Some(device) = device {
            root.show(device, device, true)?;
        }
        Ok(root)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a file for the guest's memory, `size` bytes of zeroes, which `user` may write to: on a
    /// tmpfs of its own, for all else is read-only for QEMU. To be called before QEMU is started.
    pub fn add_memory(&mut self, size: u64, user: u32) -> anyhow::Result<File> {
        let what = "cannot make a file for the guest's memory";
        let path = self.within(Path::new(MEMORY));
        let directory = path.parent().context(what)?;
        std::fs::create_dir(directory).context(what)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let options = format!("mode=0755,nr_inodes=4,size={size}");
        let options = std::ffi::CString::new(options).context(what)?;
        mount("runhcs-memory", directory, "tmpfs", flags, Some(options.as_c_str()))
            .context(what)?;
        self.shown.push(directory.to_owned());
        let file = File::options().create_new(true).read(true).write(true).open(&path);
        let file = file.context(what)?;
        std::os::unix::fs::fchown(&file, Some(user), Some(user)).context(what)?;
        file.set_len(size).context(what)?;
        Ok(file)
    }

    /// Takes away all that it shows. What QEMU has open stays so.
    pub fn strip(mut self) -> anyhow::Result<()> {
        let what = "cannot take files away from QEMU";
        while let Some(place) = self.shown.pop() {
            unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).context(what)?;
        }
        // Last here, and still QEMU's root there.
        unmount(&self.path, UnmountFlags::DETACH).context(what)?;
        std::fs::remove_dir(&self.path).context(what)
    }

    /// Shows a part of the system, or a link into another one.
    fn show_system(&mut self, path: &Path) -> anyhow::Result<()> {
        // What isn't there isn't needed.
        let Ok(metadata) = path.symlink_metadata() else { return Ok(()) };
        if !metadata.is_symlink() {
            return self.show(path, path, false);
        }
        let copied = std::fs::read_link(path)
            .and_then(|target| std::os::unix::fs::symlink(target, self.within(path)));
        copied.with_context(|| format!("cannot show {} to QEMU", path.display()))
    }

    /// Shows the top-level directory in which a program lies with what it needs.
    fn show_top(&mut self, program: &Path) -> anyhow::Result<()> {
        let name = program.components().find(|part| matches!(part, Component::Normal(_)));
        let Some(top) = name.map(|name| Path::new("/").join(name)) else { return Ok(()) };
        if self.within(&top).symlink_metadata().is_ok() {
            return Ok(());
        }
        self.show_system(&top)
    }

    /// Mounts what is at `from` at `to`, read-only.
    fn show(&mut self, from: &Path, to: &Path, device: bool) -> anyhow::Result<()> {
        let what = || format!("cannot show {} to QEMU", from.display());
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(CWD, from, flags).with_context(what)?;
        detached::make_private(tree.as_fd()).with_context(what)?;
        detached::make_harmless(tree.as_fd(), device).with_context(what)?;
        let point = self.within(to);
        if from.metadata().with_context(what)?.is_dir() {
            std::fs::create_dir(&point).with_context(what)?;
        } else {
            let parent = point.parent().filter(|parent| !parent.exists());
            parent.map_or(Ok(()), make_passable).with_context(what)?;
            File::create(&point).with_context(what)?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(tree, "", CWD, &point, flags).with_context(what)?;
        self.shown.push(point);
        Ok(())
    }

    fn within(&self, path: &Path) -> PathBuf {
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Makes a directory that QEMU's user finds files in, whatever the umask is.
fn make_passable(directory: &Path) -> io::Result<()> {
    std::fs::create_dir(directory)?;
    std::fs::set_permissions(directory, Permissions::from_mode(0o755))
}
