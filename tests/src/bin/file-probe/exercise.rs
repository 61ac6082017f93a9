//! A random exercise of a file system, after the manner of fsx and fsstress: each step is done to
//! the file system and to a model of it in memory, and the two are compared all along.
//!
//! The same seed gives the same steps, so that a failure can be repeated.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, XattrFlags};

use crate::handles::{Access, Handle, compare};
use crate::map::Map;

/// The most a file of the exercise holds, in bytes.
const MAX_LENGTH: usize = 256 << 10;
/// Files that exist at a time.
const MAX_FILES: usize = 24;
/// Descriptors that are open at a time.
const MAX_HANDLES: usize = 16;
/// Kinds of steps that begin with a name, and of those that begin with a descriptor.
const NAME_STEPS: usize = 14;
const HANDLE_STEPS: usize = 8;
const XATTR: &str = "user.probe";

/// What a file should be.
#[derive(Clone, Debug, Default)]
struct Model {
    data: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    xattr: Option<Vec<u8>>,
}

/// A directory, and what should be in it: names, and the files behind them. Hard links are names of
/// the same file.
struct Exercise {
    root: PathBuf,
    names: BTreeMap<String, usize>,
    models: Vec<Model>,
    handles: Vec<Handle>,
    random: u64,
    next_name: usize,
}

/// Takes `steps` steps in a new directory below `path`, checks everything, and removes it.
pub fn run(path: &Path, seed: u64, steps: usize) -> Result<()> {
    let root = path.join(format!("exercise-{seed}"));
    fs::create_dir(&root).context("make the directory")?;
    let mut exercise = Exercise {
        root: root.clone(),
        names: BTreeMap::new(),
        models: Vec::new(),
        handles: Vec::new(),
        random: seed | 1,
        next_name: 0,
    };
    for step in 0..steps {
        let what = exercise.step().with_context(|| format!("seed {seed}, step {step}"))?;
        exercise
            .check_all()
            .with_context(|| format!("after step {step} ({what}) with seed {seed}"))?;
    }
    fs::remove_dir_all(&root).context("remove the directory")?;
    println!("{steps} steps");
    Ok(())
}

impl Exercise {
    /// A number below `bound` (xorshift64).
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) as usize % bound.max(1)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn new_name(&mut self) -> String {
        self.next_name += 1;
        // A deep name now and then.
        if self.next_name.is_multiple_of(5) {
            let directory = format!("d{}", self.next_name);
            let _ = fs::create_dir(self.path(&directory));
            return format!("{directory}/f{}", self.next_name);
        }
        format!("f{}", self.next_name)
    }

    /// An existing name and its file.
    fn any(&mut self) -> Option<(String, usize)> {
        let index = self.below(self.names.len());
        self.names.iter().nth(index).map(|(name, model)| (name.clone(), *model))
    }

    fn step(&mut self) -> Result<&'static str> {
        let choice = self.below(NAME_STEPS + HANDLE_STEPS);
        if choice >= NAME_STEPS && !self.handles.is_empty() {
            return self.handle_step(choice - NAME_STEPS);
        }
        let Some((name, model)) = self.any().filter(|_| choice > 0 || self.names.len() > MAX_FILES)
        else {
            self.create()?;
            return Ok("create");
        };
        let path = self.path(&name);
        Ok(match choice {
            0 | 1 => (self.unlink_open(&name, model)?, "unlink while open").1,
            2 | 3 => (self.write(&path, model)?, "write").1,
            4 => (self.write_mapped(&path, model)?, "write to shared memory").1,
            5 => (self.truncate(&path, model)?, "truncate").1,
            6 => (self.punch(&path, model)?, "punch a hole").1,
            7 => {
                let new = self.new_name();
                fs::rename(&path, self.path(&new)).context("rename")?;
                self.names.remove(&name);
                self.names.insert(new, model);
                "rename"
            }
            8 => {
                let Some((over, _)) = self.any().filter(|(_, other)| *other != model) else {
                    return Ok("nothing");
                };
                fs::rename(&path, self.path(&over)).context("rename over another")?;
                self.names.remove(&name);
                self.names.insert(over, model);
                "rename over another"
            }
            9 if self.names.len() <= MAX_FILES => {
                let new = self.new_name();
                fs::hard_link(&path, self.path(&new)).context("link")?;
                self.names.insert(new, model);
                "link"
            }
            10 => {
                let mode = self.below(0o1000) as u32 | 0o600;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context("chmod")?;
                self.models[model].mode = mode;
                "chmod"
            }
            11 => {
                let owner = (self.below(70_000) as u32, self.below(70_000) as u32);
                std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1)).context("chown")?;
                self.models[model].owner = owner;
                "chown"
            }
            12 => {
                let value: Vec<u8> = (0..self.below(200) + 1).map(|n| n as u8).collect();
                rustix::fs::setxattr(&path, XATTR, &value, XattrFlags::empty())
                    .context("setxattr")?;
                self.models[model].xattr = Some(value);
                "setxattr"
            }
            13 => (self.append(&path, model)?, "append").1,
            _ => (self.open(&name)?, "open").1,
        })
    }

    /// A step with a descriptor that has stayed open.
    fn handle_step(&mut self, choice: usize) -> Result<&'static str> {
        let handle = self.below(self.handles.len());
        let (place, length) = (self.below(MAX_LENGTH), 1 + self.below(40_000));
        let byte = self.below(255) as u8 + 1;
        let is_room = self.handles.len() < MAX_HANDLES;
        let chosen = &mut self.handles[handle];
        let data = &mut self.models[chosen.model].data;
        Ok(match choice {
            0 => {
                // Rather another one on a file that is open already.
                let model = chosen.model;
                let same = self.names.iter().find(|(_, other)| **other == model);
                if let Some(name) = same.map(|(name, _)| name.clone()) {
                    self.open(&name)?;
                }
                "open again"
            }
            1 if is_room => {
                let duplicate = chosen.duplicate()?;
                self.handles.push(duplicate);
                "duplicate"
            }
            2 => (chosen.seek(place)?, "seek").1,
            3 => (chosen.read(length, data)?, "read through a descriptor").1,
            4 => (chosen.write(&vec![byte; length], data)?, "write through a descriptor").1,
            5 => (chosen.truncate(place, data)?, "truncate through a descriptor").1,
            6 => (chosen.map(data)?, "map a descriptor").1,
            _ => {
                self.handles.swap_remove(handle);
                "close"
            }
        })
    }

    /// Opens a file and leaves it open, for as long as there is room.
    fn open(&mut self, name: &str) -> Result<()> {
        let access = Access::ALL[self.below(Access::ALL.len())];
        let handle = Handle::open(&self.path(name), self.names[name], access)?;
        if self.handles.len() == MAX_HANDLES {
            let closed = self.below(MAX_HANDLES);
            self.handles.swap_remove(closed);
        }
        self.handles.push(handle);
        Ok(())
    }

    fn create(&mut self) -> Result<()> {
        let name = self.new_name();
        let file = File::create_new(self.path(&name)).context("create")?;
        let mode = 0o640;
        file.set_permissions(fs::Permissions::from_mode(mode)).context("fchmod")?;
        let meta = file.metadata()?;
        self.models.push(Model { mode, owner: (meta.uid(), meta.gid()), ..Model::default() });
        self.names.insert(name, self.models.len() - 1);
        Ok(())
    }

    /// A range within `limit`.
    fn range(&mut self, limit: usize) -> (usize, usize) {
        let start = self.below(limit);
        (start, 1 + self.below((limit - start).min(40_000)))
    }

    fn write(&mut self, path: &Path, model: usize) -> Result<()> {
        let (start, length) = self.range(MAX_LENGTH);
        let byte = self.below(255) as u8 + 1;
        let file = File::options().write(true).open(path).context("open for writing")?;
        file.write_all_at(&vec![byte; length], start as u64).context("write")?;
        if byte.is_multiple_of(3) {
            file.sync_all().context("fsync")?;
        }
        let data = &mut self.models[model].data;
        data.resize(data.len().max(start + length), 0);
        data[start..start + length].fill(byte);
        Ok(())
    }

    fn append(&mut self, path: &Path, model: usize) -> Result<()> {
        let (length, byte) = (self.below(5000) + 1, self.below(256) as u8);
        let mut file = File::options().append(true).open(path).context("open for appending")?;
        std::io::Write::write_all(&mut file, &vec![byte; length]).context("append")?;
        let data = &mut self.models[model].data;
        data.resize(data.len() + length, byte);
        Ok(())
    }

    fn write_mapped(&mut self, path: &Path, model: usize) -> Result<()> {
        let length = self.models[model].data.len();
        if length == 0 {
            return Ok(());
        }
        let (start, count) = self.range(length);
        let byte = self.below(256) as u8;
        let file = File::options().read(true).write(true).open(path).context("open to map")?;
        let map = Map::new(&file, length)?;
        for place in map.bytes().iter().skip(start).take(count) {
            place.store(byte, Ordering::Relaxed);
        }
        if byte.is_multiple_of(2) {
            map.sync()?;
        }
        let end = (start + count).min(length);
        self.models[model].data[start..end].fill(byte);
        Ok(())
    }

    fn truncate(&mut self, path: &Path, model: usize) -> Result<()> {
        let length = self.below(MAX_LENGTH);
        let file = File::options().write(true).open(path).context("open to truncate")?;
        file.set_len(length as u64).context("truncate")?;
        self.models[model].data.resize(length, 0);
        Ok(())
    }

    fn punch(&mut self, path: &Path, model: usize) -> Result<()> {
        let length = self.models[model].data.len();
        if length == 0 {
            return Ok(());
        }
        let (start, count) = self.range(length);
        let file = File::options().write(true).open(path).context("open to punch")?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, flags, start as u64, count as u64).context("punch a hole")?;
        let end = (start + count).min(length);
        self.models[model].data[start..end].fill(0);
        Ok(())
    }

    fn unlink_open(&mut self, name: &str, model: usize) -> Result<()> {
        let path = self.path(name);
        let file = File::open(&path).context("open before unlinking")?;
        fs::remove_file(&path).context("unlink")?;
        self.names.remove(name);
        ensure!(!path.exists(), "{name} is there after it was unlinked");
        let mut data = vec![0; self.models[model].data.len()];
        file.read_exact_at(&mut data, 0).context("read an unlinked file")?;
        ensure!(data == self.models[model].data, "{name} changed when it was unlinked");
        Ok(())
    }

    fn check_all(&self) -> Result<()> {
        for (name, model) in &self.names {
            self.check(name, *model).with_context(|| format!("file {name}"))?;
        }
        for (number, handle) in self.handles.iter().enumerate() {
            let links = self.links(handle.model);
            let checked = handle.check(links, &self.models[handle.model].data);
            checked.with_context(|| format!("descriptor {number}"))?;
        }
        Ok(())
    }

    fn links(&self, model: usize) -> usize {
        self.names.values().filter(|other| **other == model).count()
    }

    fn check(&self, name: &str, index: usize) -> Result<()> {
        let (path, model) = (self.path(name), &self.models[index]);
        let meta = fs::symlink_metadata(&path).context("stat")?;
        let links = self.links(index);
        ensure!(meta.nlink() == links as u64, "{} links, not {links}", meta.nlink());
        ensure!(meta.len() == model.data.len() as u64, "{} bytes long", meta.len());
        ensure!(meta.mode() & 0o7777 == model.mode, "mode {:o}, not {:o}", meta.mode(), model.mode);
        ensure!((meta.uid(), meta.gid()) == model.owner, "owner {}:{}", meta.uid(), meta.gid());
        compare(&fs::read(&path).context("read")?, &model.data)?;
        if let Some(expected) = &model.xattr {
            let mut buffer = vec![0; 256];
            let length = rustix::fs::getxattr(&path, XATTR, &mut buffer[..]).context("getxattr")?;
            ensure!(buffer[..length] == expected[..], "the attribute changed");
        }
        Ok(())
    }
}
