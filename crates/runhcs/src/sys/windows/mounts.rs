//! What a Windows container on this host sees of it: folders, files and pipes.

use std::path::Path;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use runhcs_hcs::documents::{MountSource, windows_mounts};
use runhcs_hcs::schema::{MappedDirectory, MappedPipe};

/// The documents of a container's mounts.
pub fn on_host(spec: &Spec) -> Result<(Vec<MappedDirectory>, Vec<MappedPipe>)> {
    let (mut directories, mut pipes) = (Vec::new(), Vec::new());
    for mount in windows_mounts(spec, false)? {
        match mount.source {
            MountSource::Host(path) => {
                check_source(&path)?;
                directories.push(MappedDirectory {
                    host_path: path,
                    container_path: mount.destination,
                    read_only: mount.read_only,
                    ..MappedDirectory::default()
                });
            }
            MountSource::Pipe(name) => pipes.push(MappedPipe {
                container_pipe_name: mount.destination,
                host_path: format!(r"\\.\pipe\{name}"),
                ..MappedPipe::default()
            }),
            MountSource::Guest(path) => bail!("mounts: {path} is in no virtual machine"),
        }
    }
    Ok((directories, pipes))
}

/// The folder that is to be shared, and of that, if the source is a file, that file alone.
pub fn folder_and_file(source: &str) -> Result<(&str, Option<&str>)> {
    if check_source(source)?.is_dir() {
        return Ok((source, None));
    }
    let path = Path::new(source);
    let folder = path.parent().and_then(Path::to_str);
    let file = path.file_name().and_then(|name| name.to_str());
    let parts = folder.zip(file).with_context(|| format!("mounts: {source} is in no folder"))?;
    Ok((parts.0, Some(parts.1)))
}

/// Fails unless there is something to mount.
fn check_source(path: &str) -> Result<std::fs::Metadata> {
    std::fs::metadata(path).with_context(|| format!("mounts: cannot find the source {path}"))
}
