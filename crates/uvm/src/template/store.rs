//! The directory of templates.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use runhcs_compute::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{Ingredients, MemoryIndex, TemplateId};

const MANIFEST: &str = "manifest.json";
const MEMORY: &str = "memory";
const DEVICES: &str = "devices";
/// Locked by whoever makes a template.
const LOCK: &str = ".lock";
/// What the names of unfinished templates begin with.
const DRAFT: &str = ".new-";
/// The most that a manifest may hold, in bytes.
const MAX_MANIFEST: u64 = 16 << 20;
/// The most that a machine's state may take, in bytes.
const MAX_STREAM: u64 = 64 << 20;

/// What is known of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What it was made of.
    pub ingredients: Ingredients,
    /// When it was made (RFC 3339, in UTC).
    pub created: String,
    /// How to read the memory.
    pub memory: MemoryIndex,
    /// How to read the devices.
    pub devices: Stream,
}

/// A file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    length: u64,
    crc: u32,
}

impl Stream {
    /// The file's, as it is.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn of(file: &mut File) -> std::io::Result<Self> {
        let mut content = Vec::new();
        std::io::Seek::rewind(file)?;
        file.take(MAX_STREAM).read_to_end(&mut content)?;
        Ok(Self { length: content.len() as u64, crc: crc32fast::hash(&content) })
    }
}

/// A template that was found. It stays usable when it is removed meanwhile.
#[derive(Debug)]
pub struct Template {
    /// Its id.
    pub id: TemplateId,
    /// What is known of it.
    pub manifest: Manifest,
    memory: File,
    devices: File,
}

impl Template {
    fn open(directory: &Path, id: TemplateId) -> Result<Self> {
        let failed = |name: &str, error: Box<dyn std::error::Error + Send + Sync>| {
            Error::failed(format!("cannot read {}", directory.join(name).display()), error)
        };
        let open =
            |name: &str| File::open(directory.join(name)).map_err(|e| failed(name, e.into()));
        let mut text = Vec::new();
        open(MANIFEST)?
            .take(MAX_MANIFEST)
            .read_to_end(&mut text)
            .map_err(|error| failed(MANIFEST, error.into()))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| failed(MANIFEST, error.into()))?;
        if manifest.ingredients.id() != id {
            return Err(failed(MANIFEST, "it belongs to another template".into()));
        }
        Ok(Self { id, manifest, memory: open(MEMORY)?, devices: open(DEVICES)? })
    }

    /// Writes the VM's memory to `memory`, which has to be of its size and all zeroes. To be
    /// called once.
    ///
    /// # Errors
    /// If the template is damaged.
    pub fn fill(&self, memory: &File) -> Result<()> {
        let damaged = |error| Error::failed(format!("the memory of template {}", self.id), error);
        self.manifest.memory.fill(&self.memory, memory).map_err(damaged)
    }

    /// The devices' state, from its beginning. To be called once.
    ///
    /// # Errors
    /// If the template is damaged.
    pub fn devices(&self) -> Result<File> {
        let damaged = |error| Error::failed(format!("the devices of template {}", self.id), error);
        let mut file = self.devices.try_clone().map_err(damaged)?;
        if Stream::of(&mut file).map_err(damaged)? != self.manifest.devices {
            return Err(damaged(std::io::Error::other("its checksum is wrong")));
        }
        std::io::Seek::rewind(&mut file).map_err(damaged)?;
        Ok(file)
    }
}

/// Where templates are kept.
#[derive(Clone, Debug)]
pub struct TemplateStore(PathBuf);

impl TemplateStore {
    /// The one in this directory, which needn't exist.
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// The template that was made of these.
    ///
    /// # Errors
    /// If it is damaged, or others than this user could have changed it.
    pub fn find(&self, ingredients: &Ingredients) -> Result<Option<Template>> {
        let id = ingredients.id();
        let directory = self.0.join(id.as_str());
        if !directory.exists() {
            return Ok(None);
        }
        for place in [&self.0, &directory] {
            self.check_owner(place)?;
        }
        let template = Template::open(&directory, id)?;
        // A digest could collide, and a manifest could have been edited.
        if template.manifest.ingredients != *ingredients {
            let message = "it was made of something else than it should be";
            return Err(Error::failed(format!("cannot use template {}", template.id), message));
        }
        Ok(Some(template))
    }

    /// All templates, in the order of their ids. One that can't be read is an error beside its id.
    ///
    /// # Errors
    /// If the directory can't be read.
    pub fn list(&self) -> Result<Vec<(TemplateId, Result<Template>)>> {
        let failed = |error| Error::failed(format!("cannot list {}", self.0.display()), error);
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            if let Some(Ok(id)) = name.to_str().map(str::parse::<TemplateId>) {
                let template = Template::open(&self.0.join(&name), id.clone());
                found.push((id, template));
            }
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(found)
    }

    /// Removes a template; false if there is none. VMs that were resumed from it go on.
    ///
    /// # Errors
    /// If it can't be removed.
    pub fn remove(&self, id: &TemplateId) -> Result<bool> {
        let directory = self.0.join(id.as_str());
        match std::fs::remove_dir_all(&directory) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                Err(Error::failed(format!("cannot remove {}", directory.display()), error))
            }
        }
    }

    /// Begins a new template. Waits until nobody else makes one, and removes what those who were
    /// interrupted left.
    ///
    /// # Errors
    /// If the directory can't be made or isn't this user's own.
    pub fn draft(&self) -> Result<Draft> {
        let failed =
            |error| Error::failed(format!("cannot make a template in {}", self.0.display()), error);
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.0).map_err(failed)?;
        self.check_owner(&self.0)?;
        let mut options = File::options();
        let lock = options.create(true).truncate(false).write(true).open(self.0.join(LOCK));
        let lock = lock.map_err(failed)?;
        rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
            .map_err(|error| failed(error.into()))?;
        for entry in std::fs::read_dir(&self.0).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().as_encoded_bytes().starts_with(DRAFT.as_bytes()) {
                std::fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        let directory = tempfile::Builder::new()
            .prefix(DRAFT)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&self.0)
            .map_err(failed)?;
        Ok(Draft { store: self.0.clone(), directory, _lock: lock })
    }

    fn check_owner(&self, directory: &Path) -> Result<()> {
        let failed = |error| Error::failed(format!("cannot use {}", directory.display()), error);
        let metadata = directory.symlink_metadata().map_err(failed)?;
        let ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if ours && metadata.is_dir() && metadata.mode() & 0o022 == 0 {
            return Ok(());
        }
        let message = "others can write to it, and what is in it becomes the memory of VMs";
        Err(failed(std::io::Error::other(message)))
    }
}

/// A template in the making. Nothing is left of it unless it is published.
#[derive(Debug)]
pub struct Draft {
    store: PathBuf,
    directory: tempfile::TempDir,
    _lock: File,
}

impl Draft {
    /// A directory that goes with the draft.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The file for the memory, empty.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn memory(&self) -> Result<File> {
        self.create(MEMORY)
    }

    /// The file for the devices' state, empty.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn devices(&self) -> Result<File> {
        self.create(DEVICES)
    }

    /// Gives the template its name, replacing one that has it.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn publish(self, manifest: &Manifest) -> Result<TemplateId> {
        let id = manifest.ingredients.id();
        let failed = |error| Error::failed(format!("cannot write template {id}"), error);
        let text = serde_json::to_vec_pretty(manifest)
            .map_err(|error| failed(std::io::Error::from(error)))?;
        self.create(MANIFEST)?.write_all(&text).map_err(failed)?;
        for name in [MANIFEST, MEMORY, DEVICES] {
            let file = File::open(self.directory.path().join(name));
            file.and_then(|file| file.sync_all()).map_err(failed)?;
        }
        let place = self.store.join(id.as_str());
        match std::fs::remove_dir_all(&place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        std::fs::rename(self.directory.path(), &place).map_err(failed)?;
        // It has another name now, so there is nothing to remove.
        let _ = self.directory.keep();
        Ok(id)
    }

    fn create(&self, name: &str) -> Result<File> {
        let path = self.directory.path().join(name);
        let file = File::options().create_new(true).read(true).write(true).open(&path);
        file.map_err(|error| Error::failed(format!("cannot make {}", path.display()), error))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::super::FileIdentity;
    use super::*;

    fn ingredients(memory_mib: u64) -> Ingredients {
        let file = FileIdentity::of(Path::new("/proc/self/exe")).unwrap();
        let files = [file.clone(), file.clone(), file];
        Ingredients::new(files, "tcg", memory_mib, 1, Vec::new(), String::new()).unwrap()
    }

    fn memory() -> File {
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(1 << 20).unwrap();
        memory
    }

    fn make(store: &TemplateStore, ingredients: &Ingredients) -> TemplateId {
        let draft = store.draft().unwrap();
        let full = memory();
        full.write_all_at(b"content", 5000).unwrap();
        let index = MemoryIndex::save(&full, &mut draft.memory().unwrap()).unwrap();
        let mut devices = draft.devices().unwrap();
        devices.write_all(b"devices").unwrap();
        let devices = Stream::of(&mut devices).unwrap();
        let (ingredients, created) = (ingredients.clone(), "2026-01-01T00:00:00Z".to_owned());
        let manifest = Manifest { ingredients, created, memory: index, devices };
        draft.publish(&manifest).unwrap()
    }

    #[test]
    fn what_is_made_is_found_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = TemplateStore::at(&dir.path().join("deep/store"));
        assert!(store.list().unwrap().is_empty());
        let ingredients = ingredients(1);
        assert!(store.find(&ingredients).unwrap().is_none());
        let id = make(&store, &ingredients);
        assert_eq!(make(&store, &ingredients), id, "a second one replaces the first");
        let template = store.find(&ingredients).unwrap().unwrap();
        assert!(store.find(&super::tests::ingredients(2)).unwrap().is_none());
        assert_eq!(store.list().unwrap().len(), 1);
        assert!(store.remove(&id).unwrap());
        assert!(!store.remove(&id).unwrap());
        // Who has found it can still use it.
        let target = memory();
        template.fill(&target).unwrap();
        let mut content = [0; 7];
        target.read_exact_at(&mut content, 5000).unwrap();
        assert_eq!(&content, b"content");
        let mut devices = String::new();
        template.devices().unwrap().read_to_string(&mut devices).unwrap();
        assert_eq!(devices, "devices");
    }

    #[test]
    fn nothing_is_left_of_an_interrupted_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = TemplateStore::at(dir.path());
        drop(store.draft().unwrap());
        std::fs::create_dir(dir.path().join(".new-killed")).unwrap();
        make(&store, &ingredients(1));
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(names[0], LOCK);
    }

    #[test]
    fn damage_is_an_error_and_not_a_template() {
        let dir = tempfile::tempdir().unwrap();
        let store = TemplateStore::at(dir.path());
        let ingredients = ingredients(1);
        let id = make(&store, &ingredients);
        let place = dir.path().join(id.as_str());
        std::fs::write(place.join(DEVICES), "deviceS").unwrap();
        let error = store.find(&ingredients).unwrap().unwrap().devices().unwrap_err();
        assert!(error.to_string().contains(id.as_str()), "{error}");
        std::fs::write(place.join(MANIFEST), "{}").unwrap();
        assert!(store.find(&ingredients).is_err());
        assert!(store.list().unwrap()[0].1.is_err());
        make(&store, &ingredients);
        std::fs::set_permissions(&place, Permissions::from_mode(0o777)).unwrap();
        let error = store.find(&ingredients).unwrap_err();
        assert!(error.to_string().contains("cannot use"), "{error}");
    }
}
