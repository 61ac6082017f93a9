//! Descriptors that stay open while the exercise goes on, whatever becomes of the names of their
//! files: each has its own flags and, unless it is a duplicate, its own offset.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};

use crate::map::Map;

/// What a descriptor is open for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
    /// The same, each write going to the end of the file.
    Append,
    /// Reading and writing, each write going to the disk.
    WriteThrough,
}

impl Access {
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Append, Self::WriteThrough];
}

/// An open descriptor.
pub struct Handle {
    file: File,
    /// Which file it is open on.
    pub model: usize,
    access: Access,
    /// Where it should be; duplicates are in the same place.
    offset: Rc<Cell<usize>>,
    map: Option<Map>,
}

impl Handle {
    /// Opens a file.
    pub fn open(path: &Path, model: usize, access: Access) -> Result<Self> {
        let mut options = File::options();
        options.read(true);
        match access {
            Access::Read => {}
            Access::Write => {
                options.write(true);
            }
            Access::Append => {
                options.append(true);
            }
            Access::WriteThrough => {
                let flags = rustix::fs::OFlags::DSYNC.bits() as i32;
                std::os::unix::fs::OpenOptionsExt::custom_flags(options.write(true), flags);
            }
        }
        let file = options.open(path).with_context(|| format!("open for {access:?}"))?;
        Ok(Self { file, model, access, offset: Rc::default(), map: None })
    }

    /// A duplicate (dup(2)).
    pub fn duplicate(&self) -> Result<Self> {
        let file = self.file.try_clone().context("dup")?;
        let offset = Rc::clone(&self.offset);
        Ok(Self { file, model: self.model, access: self.access, offset, map: None })
    }

    /// Moves it, perhaps beyond the end.
    pub fn seek(&mut self, to: usize) -> Result<()> {
        let at = self.file.seek(SeekFrom::Start(to as u64)).context("lseek")?;
        ensure!(at == to as u64, "a descriptor went to {at}, not to {to}");
        self.offset.set(to);
        Ok(())
    }

    /// Reads at most `length` bytes from where it is; `data` is what the file should hold.
    pub fn read(&mut self, length: usize, data: &[u8]) -> Result<()> {
        let rest = data.get(self.offset.get()..).unwrap_or_default();
        let expected = &rest[..length.min(rest.len())];
        let mut found = Vec::new();
        (&mut self.file).take(length as u64).read_to_end(&mut found).context("read")?;
        compare(&found, expected).context("read at a descriptor's offset")?;
        self.offset.set(self.offset.get() + found.len());
        Ok(())
    }

    /// Writes where it is, or at the end; `data` is what the file should hold.
    pub fn write(&mut self, bytes: &[u8], data: &mut Vec<u8>) -> Result<()> {
        let written = self.file.write_all(bytes);
        let start = match self.access {
            Access::Read => {
                let code = written.err().and_then(|error| error.raw_os_error());
                ensure!(code == Some(9), "writing where that isn't allowed: {code:?}, not EBADF");
                return Ok(());
            }
            Access::Append => data.len(),
            Access::Write | Access::WriteThrough => self.offset.get(),
        };
        written.context("write at a descriptor's offset")?;
        let end = start + bytes.len();
        data.resize(data.len().max(end), 0);
        data[start..end].copy_from_slice(bytes);
        self.offset.set(end);
        let at = self.file.stream_position().context("ask where it is")?;
        ensure!(at == end as u64, "after a write a descriptor is at {at}, not at {end}");
        Ok(())
    }

    /// Changes the file's length, if it may.
    pub fn truncate(&mut self, length: usize, data: &mut Vec<u8>) -> Result<()> {
        if self.access == Access::Read {
            return Ok(());
        }
        self.file.set_len(length as u64).context("ftruncate")?;
        data.resize(length, 0);
        Ok(())
    }

    /// Maps what the file holds now, for reading.
    pub fn map(&mut self, data: &[u8]) -> Result<()> {
        self.map = None;
        if !data.is_empty() {
            self.map = Some(Map::to_read(&self.file, data.len())?);
        }
        Ok(())
    }

    /// Whether the file is seen through it as it should be.
    pub fn check(&self, links: usize, data: &[u8]) -> Result<()> {
        let meta = self.file.metadata().context("fstat")?;
        ensure!(meta.nlink() == links as u64, "{} links, not {links}", meta.nlink());
        ensure!(meta.len() == data.len() as u64, "{} bytes long, not {}", meta.len(), data.len());
        // One more than there should be.
        let mut found = vec![0; data.len() + 1];
        let mut length = 0;
        loop {
            match self.file.read_at(&mut found[length..], length as u64).context("pread")? {
                0 => break,
                more => length += more,
            }
        }
        compare(&found[..length], data).context("pread")?;
        if let Some(map) = &self.map {
            // What is beyond the end of the file can't be looked at (SIGBUS, mmap(2)).
            let length = map.bytes().len().min(data.len());
            let mapped = map.bytes()[..length].iter().map(|byte| byte.load(Ordering::Relaxed));
            compare(&mapped.collect::<Vec<u8>>(), &data[..length]).context("its mapping")?;
        }
        Ok(())
    }
}

/// Whether bytes are those that are expected.
pub fn compare(found: &[u8], expected: &[u8]) -> Result<()> {
    ensure!(found.len() == expected.len(), "{} bytes, not {}", found.len(), expected.len());
    let different = (0..found.len()).find(|at| found[*at] != expected[*at]);
    if let Some(at) = different {
        anyhow::bail!("byte {at} is {}, not {}", found[at], expected[at]);
    }
    Ok(())
}
