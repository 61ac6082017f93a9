//! Disks with an ext4 file system, made by e2fsprogs' own program: why not in a VM is in
//! `docs/decisions/0016-disks-behind-a-controller.md`.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, Mode, OFlags, SeekFrom, flock, seek};
use rustix::io::Errno;

const MIB: u64 = 1 << 20;
/// No space for root alone; tables and journal are zeroed when they are first used, so an image
/// stays as sparse as it is.
const OPTIONS: &str = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0";

/// Makes a disk that has no name and is gone when its last descriptor is closed.
///
/// # Errors
/// If there is no place for it, or mke2fs fails.
pub fn anonymous(directory: &Path, mib: u64) -> Result<OwnedFd> {
    let what = || format!("make a scratch disk in {}", directory.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(what)?;
    let file = tempfile::tempfile_in(directory).with_context(what)?;
    file.set_len(mib * MIB).with_context(what)?;
    format(&file).with_context(what)?;
    Ok(file.into())
}

/// Makes an image. It takes its name when it is whole; one that exists is not touched.
///
/// # Errors
/// If something has the name, if there is no place for it, or if mke2fs fails.
pub fn image(path: &Path, gib: u64) -> Result<()> {
    publish(path, |file| {
        file.set_len(gib * 1024 * MIB)?;
        format(file)
    })
}

/// Copies an image, with its holes. It takes its name when it is whole; one that exists is not
/// touched.
///
/// # Errors
/// If something has the name, or if it can't be copied.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).with_context(|| format!("open {}", from.display()))?;
    publish(to, |file| copy_content(&mut source, file))
}

/// Makes an ext4 file system on a disk that exists and isn't in use.
///
/// # Errors
/// If it holds something already, unless `force`; if it is in use; or if mke2fs fails.
pub fn prepare(path: &Path, force: bool) -> Result<()> {
    let what = || format!("open {}", path.display());
    // On a block device it fails if that is mounted; on a file it means nothing (open(2)).
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOCTTY;
    let disk = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::BUSY) => {
            bail!("{} is in use on this host, by a mount for example", path.display())
        }
        disk => File::from(disk.with_context(what)?),
    };
    match flock(&disk, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => bail!("{} is in use by a container", path.display()),
        locked => locked.with_context(what)?,
    }
    let kind = disk.metadata().with_context(what)?.file_type();
    let block_device = std::os::unix::fs::FileTypeExt::is_block_device(&kind);
    ensure!(kind.is_file() || block_device, "{} is no disk", path.display());
    if !force && let Some(found) = content(&disk)? {
        bail!("{} holds {found} already; --force overwrites it", path.display());
    }
    // mke2fs wants the device for itself.
    drop(disk);
    run_mke2fs(path, None)
}

/// What a disk holds, as far as blkid(8) recognises it.
fn content(disk: &File) -> Result<Option<String>> {
    let mut blkid = program("blkid");
    blkid.args(["--probe", "--match-tag", "TYPE", "--match-tag", "PTTYPE", "--output", "value"]);
    blkid.arg(inherited_path(disk)).stdin(Stdio::null());
    inherit(&mut blkid, disk)?;
    let output = blkid.output().context("run blkid, which is part of util-linux")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().replace('\n', ", ");
    match output.status.code() {
        Some(0) if !text.is_empty() => Ok(Some(text)),
        // Nothing, or more than one thing (blkid(8)).
        Some(0 | 2) => Ok(None),
        Some(8) => Ok(Some("several file systems".to_owned())),
        _ => bail!("blkid failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

fn format(file: &File) -> Result<()> {
    run_mke2fs(&inherited_path(file), Some(file))
}

fn run_mke2fs(path: &Path, inherited: Option<&File>) -> Result<()> {
    let mut mke2fs = program("mke2fs");
    // A file is as good as a device.
    mke2fs.args(["-q", "-F", "-t", "ext4", "-m", "0", "-E", OPTIONS]).arg(path);
    mke2fs.stdin(Stdio::null());
    if let Some(file) = inherited {
        inherit(&mut mke2fs, file)?;
    }
    let output = mke2fs.output().context("run mke2fs, which is part of e2fsprogs")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("mke2fs failed ({}): {}", output.status, said.trim().replace('\n', "; "));
    }
    Ok(())
}

/// A program of the system's, also for callers whose `PATH` has no directories of root's.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
    command.env("PATH", path + ":/usr/sbin:/sbin").env("LC_ALL", "C");
    command
}

/// Where a child that inherits a file finds it.
fn inherited_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Has a child inherit a file. This process has one thread, so no other child gets it.
fn inherit(command: &mut Command, file: &File) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let copy = file.as_fd().try_clone_to_owned().context("copy a descriptor")?;
    let number = file.as_raw_fd();
    // SAFETY: between fork and exec only dup2(2) and fcntl(2) are called, on descriptors that stay
    // open: the closure owns the one, and the caller holds the other until the child has run.
    unsafe {
        command.pre_exec(move || {
            let _ = &copy;
            let fd = std::os::fd::BorrowedFd::borrow_raw(number);
            Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?)
        });
    }
    Ok(())
}

/// Makes a file under a temporary name beside its own, which it takes when it is whole.
fn publish(path: &Path, fill: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let what = || format!("make {}", path.display());
    if path.symlink_metadata().is_ok() {
        bail!("{} exists already", path.display());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let file = tempfile::Builder::new().prefix(".runhcs-").tempfile_in(directory);
    let file = file.with_context(what)?;
    fill(file.as_file()).with_context(what)?;
    file.persist_noclobber(path).with_context(what)?;
    Ok(())
}

fn copy_content(from: &mut File, to: &File) -> Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut position = 0;
    while position < length {
        let data = match seek(&*from, SeekFrom::Data(position)) {
            Ok(data) => data,
            // Nothing but a hole follows (lseek(2)).
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = seek(&*from, SeekFrom::Hole(data))?;
        seek(&*from, SeekFrom::Start(data))?;
        seek(to, SeekFrom::Start(data))?;
        let part = &mut std::io::Read::take(&mut *from, hole - data);
        std::io::copy(part, &mut &*to)?;
        position = hole;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// The magic number of ext4, which is 1080 bytes from the beginning.
    fn is_ext4(file: &File) -> bool {
        let mut magic = [0; 2];
        std::os::unix::fs::FileExt::read_exact_at(file, &mut magic, 1080).unwrap();
        magic == [0x53, 0xef]
    }

    #[test]
    fn images_are_sparse_whole_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        image(&path, 2).unwrap();
        let metadata = path.metadata().unwrap();
        assert_eq!(metadata.len(), 2 << 30);
        assert!(metadata.blocks() * 512 < 64 << 20, "{} blocks", metadata.blocks());
        assert!(is_ext4(&File::open(&path).unwrap()));
        assert!(image(&path, 1).unwrap_err().to_string().contains("exists already"));

        let second = directory.path().join("copy");
        copy(&path, &second).unwrap();
        assert!(second.metadata().unwrap().blocks() * 512 < 64 << 20);
        let same = Command::new("cmp").arg(&path).arg(&second).status().unwrap();
        assert!(same.success());
        assert!(copy(&path, &second).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "a part is left");
    }

    #[test]
    fn an_anonymous_disk_has_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("a/b");
        let disk = File::from(anonymous(&place, 64).unwrap());
        assert!(is_ext4(&disk));
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    }

    #[test]
    fn what_holds_something_is_prepared_by_force_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, vec![0; 16 << 20]).unwrap();
        prepare(&path, false).unwrap();
        let error = prepare(&path, false).unwrap_err().to_string();
        assert!(error.contains("holds ext4 already"), "{error}");
        prepare(&path, true).unwrap();
        let error = prepare(directory.path(), true).unwrap_err().to_string();
        assert!(error.contains("open"), "{error}");
        let error = prepare(Path::new("/dev/null"), true).unwrap_err().to_string();
        assert!(error.contains("is no disk"), "{error}");
    }
}
