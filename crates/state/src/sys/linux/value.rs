//! Values as files in an entry's directory.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::sys::Read;
use crate::{Error, Result};

/// The largest value that is read, in bytes.
const MAX_VALUE: u64 = 64 << 20;

/// The file name of a value. The caller's names are words; anything else would leave the directory
/// or clash with the store's own files.
///
/// # Errors
/// `EINVAL` for a name that isn't a word of `A-Z a-z 0-9 - _`.
fn file_name(dir: &Path, value: &str) -> Result<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if value.is_empty() || value.len() > 100 || !value.chars().all(allowed) {
        return Err(Error::io("name a value", &dir.join(value), Errno::INVAL));
    }
    Ok(format!("{value}.json"))
}

/// Where a value is kept.
pub(super) fn path(dir: &Path, value: &str) -> PathBuf {
    dir.join(format!("{value}.json"))
}

/// Reads a value from the directory `dir`, whose path is only for messages.
pub(super) fn read(dir: impl AsFd, dir_path: &Path, value: &str) -> Result<Read> {
    let name = file_name(dir_path, value)?;
    let failed = |e: std::io::Error| Error::io("read", &path(dir_path, value), e);
    // NONBLOCK: whatever lies there, opening it must not wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(dir, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Read::Absent),
        Err(Errno::LOOP) => return Ok(Read::Unusable("it is a symbolic link".into())),
        Err(error) => return Err(failed(error.into())),
    };
    let stat = fstat(&file).map_err(|e| failed(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(Read::Unusable("it is not a regular file".into()));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size > MAX_VALUE {
        return Ok(Read::Unusable(format!("it has {size} bytes, at most {MAX_VALUE} are read")));
    }
    let mut json = Vec::with_capacity(size as usize + 1);
    File::from(file).take(MAX_VALUE).read_to_end(&mut json).map_err(failed)?;
    Ok(Read::Value(json))
}

/// Writes a value, whole or not at all. The caller holds the directory's lock.
pub(super) fn write(dir: impl AsFd, dir_path: &Path, value: &str, json: &[u8]) -> Result<()> {
    let name = file_name(dir_path, value)?;
    let draft = format!("~{value}");
    let written = write_draft(&dir, &draft, json).and_then(|()| {
        renameat(&dir, &draft, &dir, &name)?;
        Ok(())
    });
    written.map_err(|error| {
        // If even this fails, the next write overwrites the draft, and `remove` removes it.
        let _ = unlinkat(&dir, &draft, AtFlags::empty());
        Error::io("write", &path(dir_path, value), error)
    })
}

fn write_draft(dir: impl AsFd, draft: &str, json: &[u8]) -> std::io::Result<()> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, draft, flags, Mode::RUSR | Mode::WUSR)?;
    File::from(file).write_all(json)
}

/// Removes a value. Succeeds if it was never written.
pub(super) fn erase(dir: impl AsFd, dir_path: &Path, value: &str) -> Result<()> {
    match unlinkat(dir, file_name(dir_path, value)?, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(Error::io("remove", &path(dir_path, value), error)),
    }
}
