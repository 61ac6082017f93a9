//! A VM's memory in a file: the runs of pages that aren't all zeroes, one after another.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

/// Bytes of a page.
const PAGE: usize = 4096;
/// How many pages of zeroes are saved rather than begin a new run.
const GAP: u64 = 8;
/// Bytes that are copied at a time: so few that they stay in the processor's cache.
const CHUNK: usize = 256 << 10;

/// Where in the VM's memory the file's content belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryIndex {
    /// The VM's memory, in bytes.
    pub size: u64,
    /// The runs in the order of the file: where each begins in the memory, and how long it is, in
    /// bytes.
    runs: Vec<(u64, u64)>,
    /// The file's checksum.
    crc: u32,
}

impl MemoryIndex {
    /// Writes what isn't all zeroes of `memory` to `file`.
    ///
    /// # Errors
    /// If either fails.
    pub fn save(memory: &File, file: &mut File) -> io::Result<Self> {
        let size = memory.metadata()?.len();
        let runs = find_runs(memory, size)?;
        let mut crc = crc32fast::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        for (begin, length) in &runs {
            for (at, part) in chunks(*begin, *length) {
                let part = &mut buffer[..part];
                memory.read_exact_at(part, at)?;
                crc.update(part);
                file.write_all(part)?;
            }
        }
        Ok(Self { size, runs, crc: crc.finalize() })
    }

    /// Writes to `memory`, which has to be of the right size and all zeroes, what `file` holds.
    ///
    /// # Errors
    /// If either fails, or if it isn't the file that was written.
    pub fn fill(&self, mut file: &File, memory: &File) -> io::Result<()> {
        let mut crc = crc32fast::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        for (begin, length) in &self.runs {
            let end = begin.checked_add(*length);
            if end.is_none_or(|end| end > self.size) {
                return Err(io::Error::other("its index leads out of the memory"));
            }
            for (at, part) in chunks(*begin, *length) {
                let part = &mut buffer[..part];
                file.read_exact(part)?;
                crc.update(part);
                memory.write_all_at(part, at)?;
            }
        }
        if file.read(&mut [0])? != 0 {
            return Err(io::Error::other("it is longer than it was"));
        }
        if crc.finalize() != self.crc {
            return Err(io::Error::other("its checksum is wrong"));
        }
        Ok(())
    }

    /// What is saved, in bytes.
    pub fn saved(&self) -> u64 {
        self.runs.iter().map(|(_, length)| length).sum()
    }
}

fn chunks(begin: u64, length: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..length).step_by(CHUNK).map(move |at| {
        let part = usize::try_from(length - at).map_or(CHUNK, |left| left.min(CHUNK));
        (begin + at, part)
    })
}

fn find_runs(memory: &File, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut buffer = vec![0; CHUNK];
    let gap = GAP * PAGE as u64;
    for (at, length) in chunks(0, size) {
        let part = &mut buffer[..length];
        memory.read_exact_at(part, at)?;
        for (number, page) in part.chunks(PAGE).enumerate() {
            if page.iter().all(|byte| *byte == 0) {
                continue;
            }
            let (begin, length) = (at + (number * PAGE) as u64, page.len() as u64);
            match runs.last_mut() {
                Some((first, before)) if begin - (*first + *before) <= gap => {
                    *before = begin + length - *first;
                }
                _ => runs.push((begin, length)),
            }
        }
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;

    fn memory(contents: &[(u64, &[u8])]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        for (at, data) in contents {
            file.write_all_at(data, *at).unwrap();
        }
        file
    }

    fn saved(memory: &File) -> (MemoryIndex, File) {
        let mut file = tempfile::tempfile().unwrap();
        let index = MemoryIndex::save(memory, &mut file).unwrap();
        file.rewind().unwrap();
        (index, file)
    }

    fn content(mut file: File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn memory_comes_back_as_it_was() {
        let long = vec![7; CHUNK + 5];
        let full = memory(&[
            (5, b"start"),
            (1 << 20, &long),
            ((1 << 20) + 600_000, b"x"),
            ((4 << 20) - 1, b"e"),
        ]);
        let (index, file) = saved(&full);
        assert!(index.saved() < 1 << 19, "{index:?}");
        let target = memory(&[]);
        index.fill(&file, &target).unwrap();
        assert!(content(target) == content(full));
    }

    #[test]
    fn empty_memory_takes_nothing() {
        let (index, file) = saved(&memory(&[]));
        assert_eq!((index.saved(), file.metadata().unwrap().len()), (0, 0));
    }

    #[test]
    fn what_is_damaged_is_noticed() {
        let full = memory(&[(8192, b"secret")]);
        let (index, file) = saved(&full);
        file.write_all_at(b"S", 0).unwrap();
        let error = index.fill(&file, &memory(&[])).unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
        let (index, file) = saved(&full);
        file.set_len(100).unwrap();
        assert!(index.fill(&file, &memory(&[])).is_err());
        let (mut index, file) = saved(&full);
        index.runs[0].0 = u64::MAX - 5;
        let error = index.fill(&file, &memory(&[])).unwrap_err();
        assert!(error.to_string().contains("leads out"), "{error}");
    }
}
