//! The pid file: complete as soon as it is visible, for its readers wait for it to appear.

use std::io::Write;
use std::path::Path;

use anyhow::Context;

/// Writes the pid to `path`.
pub fn write(path: &Path, pid: u32) -> anyhow::Result<()> {
    let what = || format!("write pid file {}", path.display());
    let name = path.file_name().with_context(what)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(hidden);
    let written = std::fs::File::create_new(&temporary)
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_was_there_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        write(&path, 1).unwrap();
        write(&path, 4711).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "4711");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let error = write(&directory.path().join("no/pid"), 1).unwrap_err();
        assert!(error.to_string().contains("no/pid"), "{error}");
    }
}
