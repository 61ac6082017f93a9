//! What a Windows container on this host sees of it: folders, files and pipes.

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

/// Fails unless there is something to mount.
pub fn check_source(path: &str) -> Result<std::fs::Metadata> {
    std::fs::metadata(path).with_context(|| format!("mounts: cannot find the source {path}"))
}
