//! A Windows container in a Windows guest.

use anyhow::{Context, Result};
use oci_spec::runtime::Spec;
use runhcs_hcs::documents::guest_paths::{windows_pipe, windows_share};
use runhcs_hcs::documents::{
    LayerFolders, MountSource, WindowsContainer, WindowsMount, combined_layers, layers,
    mapped_pipe, read_only_share, smb_share, windows_mounts, xenon,
};
use runhcs_hcs::schema::{MappedDirectory, MappedPipe, VirtualSmbShareOptions};
use runhcs_hcs::service::System;
use runhcs_state::Record;

use super::holdings::{Holdings, Mountable, Place};
use super::machine::Machine;
use crate::sys::layers::scratch_disk;
use crate::sys::mounts::folder_and_file;

/// Gives the container what it needs in the VM, and creates it there.
pub fn create(
    machine: &Machine,
    holdings: &mut Holdings,
    record: &Record,
    spec: &Spec,
) -> Result<System> {
    let folders = LayerFolders::of(spec)?;
    let mut seen = Vec::new();
    for folder in &folders.read_only {
        let path =
            holdings.share(&machine.system, &machine.layers, folder, || layer(machine, folder))?;
        seen.push((folder.as_str(), path));
    }
    let root = machine.add_scratch(holdings, &scratch_disk(&folders.scratch))?;
    let seen = layers(seen.iter().map(|(folder, path)| (*folder, path.as_str())));
    // What is written is beneath the root itself.
    let combined = combined_layers(&root, seen.clone(), "");
    holdings.add(&machine.system, combined, Place::None, true)?;
    let (mut directories, mut pipes) = (Vec::new(), Vec::new());
    for mount in windows_mounts(spec, true)? {
        let WindowsMount { source, destination, read_only } = mount;
        let host_path = match source {
            MountSource::Host(path) => share(machine, holdings, &path, read_only)?,
            MountSource::Guest(path) => path,
            MountSource::Pipe(name) => {
                let host_path = windows_pipe(&name);
                holdings.add(&machine.system, mapped_pipe(&name), Place::None, false)?;
                pipes.push(MappedPipe {
                    container_pipe_name: destination,
                    host_path,
                    ..MappedPipe::default()
                });
                continue;
            }
        };
        directories.push(MappedDirectory {
            host_path,
            container_path: destination,
            read_only,
            ..MappedDirectory::default()
        });
    }
    let prepared = WindowsContainer {
        layers: seen,
        root,
        directories,
        pipes,
        namespace: record.netns.as_ref().map(|id| id.to_string_lossy().into_owned()),
        processors: machine.options.processors,
    };
    let document = xenon(spec, &record.owner, machine.id(), prepared)?;
    Ok(System::create(record.id.as_str(), &document)?)
}

/// How a layer gets into the VM: as a share that nobody writes to.
fn layer(machine: &Machine, folder: &str) -> Result<Mountable> {
    std::fs::metadata(folder).with_context(|| format!("find the layer {folder}"))?;
    let name = format!("s{}", machine.slots.number());
    let options = read_only_share(&machine.options, machine.windows);
    let change = smb_share(&name, folder, None, options);
    Ok(Mountable { change, place: Place::None, path: windows_share(&name) })
}

/// Shares a folder or file of the host, and returns its path in the guest.
fn share(
    machine: &Machine,
    holdings: &mut Holdings,
    source: &str,
    read_only: bool,
) -> Result<String> {
    machine.check_share(source, read_only)?;
    let name = format!("s{}", machine.slots.number());
    let (folder, file) = folder_and_file(source)?;
    let options = match read_only {
        true => read_only_share(&machine.options, machine.windows),
        // Others on the host may change it, so the guest caches nothing.
        false => VirtualSmbShareOptions { no_oplocks: true, ..VirtualSmbShareOptions::default() },
    };
    holdings.add(&machine.system, smb_share(&name, folder, file, options), Place::None, false)?;
    Ok(match file {
        Some(file) => format!(r"{}\{file}", windows_share(&name)),
        None => windows_share(&name),
    })
}
