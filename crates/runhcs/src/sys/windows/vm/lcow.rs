//! A Linux container in a Linux guest.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::runtime::{Mount, Spec};
use runhcs_hcs::documents::guest_paths::{
    linux_pmem_layer, linux_rootfs, linux_scsi_mount, linux_share,
};
use runhcs_hcs::documents::{
    Guest, LayerFolders, combined_layers, layers, lcow_container, lcow_hosted, plan9_share,
    pmem_layer, scsi_disk,
};
use runhcs_hcs::service::{System, grant_access};
use runhcs_state::Record;

use super::holdings::{Holdings, Mountable, Place};
use super::machine::Machine;
use crate::sys::layers::scratch_disk;
use crate::sys::mounts::folder_and_file;

/// A read-only layer's file, in its folder.
const LAYER: &str = "layer.vhd";
/// What begins a source that the guest itself finds.
const GUEST_SOURCE: &str = "sandbox://";

/// Gives the container what it needs in the VM, and creates it there.
pub fn create(
    machine: &Machine,
    holdings: &mut Holdings,
    record: &Record,
    spec: &Spec,
) -> Result<System> {
    let folders = LayerFolders::of(spec)?;
    let id = record.id.as_str();
    let mut seen = Vec::new();
    for folder in &folders.read_only {
        let path =
            holdings.share(&machine.system, &machine.layers, folder, || layer(machine, folder))?;
        seen.push((folder.as_str(), path));
    }
    let scratch = machine.add_scratch(holdings, &scratch_disk(&folders.scratch))?;
    let seen = layers(seen.iter().map(|(folder, path)| (*folder, path.as_str())));
    let root = combined_layers(&linux_rootfs(id), seen, &scratch);
    holdings.add(&machine.system, root, Place::None, true)?;
    let spec = share_mounts(machine, holdings, id, spec)?;
    let document = lcow_container(&record.owner, machine.id(), lcow_hosted(&spec, id, &scratch)?);
    Ok(System::create(id, &document)?)
}

/// How a layer gets into the VM: as persistent memory while there is some, else as a disk.
fn layer(machine: &Machine, folder: &str) -> Result<Mountable> {
    let path = Path::new(folder).join(LAYER);
    let file = path.to_str().context("the layer's path is not Unicode")?;
    std::fs::metadata(&path).with_context(|| format!("find the layer {file}"))?;
    grant_access(machine.id(), &path)?;
    if let Some(lease) = machine.slots.pmem() {
        let path = linux_pmem_layer(lease.place);
        let change = pmem_layer(lease.place, file, &path);
        return Ok(Mountable { change, place: Place::Pmem(lease), path });
    }
    let (lease, path) = (machine.slots.scsi()?, linux_scsi_mount(machine.slots.number()));
    let change = scsi_disk(lease.place, file, true, &path, Guest::Linux);
    Ok(Mountable { change, place: Place::Scsi(lease), path })
}

/// Shares what the container mounts of the host, and names it as the guest sees it.
fn share_mounts(machine: &Machine, holdings: &mut Holdings, id: &str, spec: &Spec) -> Result<Spec> {
    let mut spec = spec.clone();
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if let Some(source) = host_source(mount) {
            let path = share(machine, holdings, id, mount, &source)?;
            mount.set_source(Some(PathBuf::from(path)));
        }
    }
    Ok(spec)
}

/// What a mount shows of the host.
fn host_source(mount: &Mount) -> Option<String> {
    let options = mount.options().iter().flatten();
    let is_bind = mount.typ().as_deref() == Some("bind")
        || options.into_iter().any(|option| option == "bind" || option == "rbind");
    let source = mount.source().as_ref().filter(|_| is_bind)?.to_string_lossy().into_owned();
    (!source.starts_with(GUEST_SOURCE)).then_some(source)
}

fn share(
    machine: &Machine,
    holdings: &mut Holdings,
    id: &str,
    mount: &Mount,
    source: &str,
) -> Result<String> {
    let read_only = mount.options().iter().flatten().any(|option| option == "ro");
    machine.check_share(source, read_only)?;
    let number = machine.slots.number();
    let place = linux_share(id, number);
    let (folder, file) = folder_and_file(source)?;
    let change = plan9_share(&number.to_string(), folder, file, read_only, &place);
    holdings.add(&machine.system, change, Place::None, false)?;
    Ok(match file {
        Some(name) => format!("{place}/{name}"),
        None => place,
    })
}
