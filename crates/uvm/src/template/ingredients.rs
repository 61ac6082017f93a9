//! What a saved VM depends on.
//!
//! Files are known by what stat(2) says of them rather than by their content: reading sixty
//! megabytes at each start would cost more than a template saves.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use runhcs_compute::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::TemplateId;

/// Changed when templates are written in another way.
const FORMAT: u32 = 1;

/// A file as it was at some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileIdentity {
    /// Its path, without symbolic links.
    pub path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    /// When it was changed last, in nanoseconds since 1970: unlike the time of modification,
    /// nobody can set it (`st_ctim`, stat(2)).
    changed: i128,
}

impl FileIdentity {
    /// The file as it is now.
    ///
    /// # Errors
    /// If it can't be looked at.
    pub fn of(path: &Path) -> Result<Self> {
        let failed = |error| Error::failed(format!("cannot look at {}", path.display()), error);
        let path = path.canonicalize().map_err(failed)?;
        let metadata = path.metadata().map_err(failed)?;
        let changed =
            i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.size());
        Ok(Self { path, device, inode, size, changed })
    }

    fn is_current(&self) -> bool {
        Self::of(&self.path).is_ok_and(|now| now == *self)
    }
}

/// Everything that the state of a saved VM depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingredients {
    format: u32,
    protocol: u32,
    /// The guest's kernel.
    pub kernel: FileIdentity,
    /// The guest's initramfs, with the agent in it.
    pub initramfs: FileIdentity,
    /// QEMU's program: what it writes is for itself.
    pub qemu: FileIdentity,
    /// The host's processor, a digest: the guest's has features of it.
    pub processor: String,
    /// What runs the guest's instructions: `kvm` or `tcg`.
    pub accelerator: String,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Number of virtual CPUs.
    pub vcpus: u32,
    /// QEMU's arguments that describe the machine.
    pub machine: Vec<String>,
    /// The kernel's command line.
    pub command_line: String,
}

impl Ingredients {
    /// Of these, and of this program's own formats.
    #[allow(clippy::too_many_arguments, reason = "each is a field, named where this is called")]
    pub fn new(
        [kernel, initramfs, qemu]: [FileIdentity; 3],
        accelerator: &str,
        memory_mib: u64,
        vcpus: u32,
        machine: Vec<String>,
        command_line: String,
    ) -> Result<Self> {
        Ok(Self {
            format: FORMAT,
            protocol: runhcs_protocol::VERSION,
            kernel,
            initramfs,
            qemu,
            processor: processor()?,
            accelerator: accelerator.to_owned(),
            memory_mib,
            vcpus,
            machine,
            command_line,
        })
    }

    /// The template's id.
    pub fn id(&self) -> TemplateId {
        // Serializing this structure can't fail; an empty text would find no template.
        TemplateId::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// Why no VM would resume from such a template any more, if that can be told without knowing
    /// what a VM asks for.
    pub fn outdated(&self) -> Option<String> {
        let files =
            [("kernel", &self.kernel), ("initramfs", &self.initramfs), ("QEMU", &self.qemu)];
        if let Some((what, _)) = files.into_iter().find(|(_, file)| !file.is_current()) {
            return Some(format!("another {what}"));
        }
        if (self.format, self.protocol) != (FORMAT, runhcs_protocol::VERSION) {
            return Some("another version of runhcs".to_owned());
        }
        let other_processor = processor().is_ok_and(|processor| processor != self.processor);
        other_processor.then(|| "another processor".to_owned())
    }
}

/// A digest of the host's processor: its model, its microcode and its features, as the kernel
/// shows them.
///
/// # Errors
/// If `/proc/cpuinfo` can't be read.
pub fn processor() -> Result<String> {
    let path = "/proc/cpuinfo";
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::failed(format!("cannot read {path}"), error))?;
    // Each processor has a paragraph. Its number and its present frequency mean nothing here.
    let first = text.split("\n\n").next().unwrap_or_default();
    let telling = ["vendor_id", "cpu family", "model", "stepping", "microcode", "flags", "bugs"];
    let mut digest = Sha256::new();
    for line in first.lines().filter(|line| telling.iter().any(|name| line.starts_with(name))) {
        digest.update(line);
        digest.update("\n");
    }
    Ok(digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingredients(directory: &Path) -> Ingredients {
        let file = |name: &str| {
            let path = directory.join(name);
            if !path.exists() {
                std::fs::write(&path, name).unwrap();
            }
            FileIdentity::of(&path).unwrap()
        };
        let files = [file("kernel"), file("initramfs"), file("qemu")];
        Ingredients::new(files, "tcg", 256, 1, vec!["-m".into()], "quiet".into()).unwrap()
    }

    #[test]
    fn the_same_things_have_the_same_id_and_others_another() {
        let directory = tempfile::tempdir().unwrap();
        let first = ingredients(directory.path());
        assert_eq!(first.id(), ingredients(directory.path()).id());
        assert_eq!(first.outdated(), None);
        let more_memory = Ingredients { memory_mib: 512, ..first.clone() };
        assert_ne!(first.id(), more_memory.id());
        // Another file of the same size.
        std::fs::write(directory.path().join("new"), "kernel").unwrap();
        std::fs::rename(directory.path().join("new"), directory.path().join("kernel")).unwrap();
        assert_ne!(first.id(), ingredients(directory.path()).id());
        assert_eq!(first.outdated().as_deref(), Some("another kernel"));
    }
}
