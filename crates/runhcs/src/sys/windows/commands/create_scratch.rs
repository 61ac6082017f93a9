//! `create-scratch`: the writable disk of a Linux container, a VHDX file with ext4 on it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use runhcs_hcs::service::Disk;

use crate::globals::Globals;
use crate::sys::cli::CreateScratchArgs;
use crate::sys::vm::Formatter;

/// The size if none is given, and the only one that is kept for copies, in GiB.
const DEFAULT_SIZE_GB: u32 = 20;

/// Makes the disk, or copies one that was kept. If that fails, there is none.
pub fn run(globals: &Globals, args: &CreateScratchArgs) -> Result<u8> {
    let path = absolute(&args.destpath)?;
    let size = if args.size_gb == 0 { DEFAULT_SIZE_GB } else { args.size_gb };
    let kept = args.cache_path.as_deref().filter(|_| size == DEFAULT_SIZE_GB);
    let kept = kept.map(absolute).transpose()?;
    if let Some(kept) = kept.as_ref().filter(|kept| kept.is_file()) {
        let disk = NewFile::make(path)?;
        copy(kept, &disk.0)?;
        disk.keep();
        return Ok(0);
    }
    Disk::create(&path, u64::from(size) << 30)?;
    let disk = NewFile(path);
    let formatter = Formatter::start(globals, args.use_virtual_memory)?;
    formatter.format(&disk.0)?;
    formatter.end()?;
    if let Some(kept) = kept {
        keep_copy(&disk.0, &kept)?;
    }
    disk.keep();
    Ok(0)
}

/// The service has another working directory.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("make {} absolute", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("copy {} to {}", from.display(), to.display());
    std::fs::copy(from, to).map(drop).with_context(what)
}

/// Keeps a copy, which appears whole or not at all. Others may do so at the same time.
fn keep_copy(disk: &Path, kept: &Path) -> Result<()> {
    let mut name = kept.to_path_buf().into_os_string();
    name.push(format!(".{}", uuid::Uuid::new_v4()));
    let begun = NewFile::make(name.into())?;
    copy(disk, &begun.0)?;
    match std::fs::rename(&begun.0, kept) {
        Ok(()) => begun.keep(),
        // Another one's is as good.
        Err(_) if kept.is_file() => {}
        Err(error) => return Err(error).with_context(|| format!("keep {}", kept.display())),
    }
    Ok(())
}

/// A file that is deleted unless it is kept.
struct NewFile(PathBuf);

impl NewFile {
    /// Makes an empty one where there is none.
    fn make(path: PathBuf) -> Result<Self> {
        match File::create_new(&path) {
            Ok(_) => Ok(Self(path)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("{} exists already", path.display())
            }
            Err(error) => Err(error).with_context(|| format!("make {}", path.display())),
        }
    }

    fn keep(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!("delete {}: {error}", self.0.display());
        }
    }
}
