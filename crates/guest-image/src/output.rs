//! The made files: each is complete or not there.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// A file that takes its name when all of them are written.
#[derive(Debug)]
pub struct Pending {
    temporary: tempfile::NamedTempFile,
    path: PathBuf,
}

/// Writes a file under a temporary name.
pub fn write(directory: &Path, name: &str, content: &[u8]) -> Result<Pending> {
    let path = directory.join(name);
    let what = || format!("write {}", path.display());
    let mut temporary = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .with_context(what)?;
    temporary.write_all(content).with_context(what)?;
    Ok(Pending { temporary, path })
}

impl Pending {
    /// Gives the file its name, replacing what had it.
    pub fn publish(self) -> Result<()> {
        let path = self.path;
        self.temporary.persist(&path).with_context(|| format!("write {}", path.display()))?;
        Ok(())
    }
}

/// SHA-256 in hexadecimal.
pub fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
