//! Which kernel modules the guest needs, and in which order they can be loaded. Packages ship no
//! dependency list, so it is read from the modules themselves.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

use crate::decompress::decompress;

/// What the agent needs to come up: the virtual hardware, the link to the host, the shared file
/// system, and overlays for containers.
pub const WANTED: [&str; 7] = [
    "virtio_mmio",
    "virtio_pci",
    "vmw_vsock_virtio_transport",
    "fuse",
    "virtiofs",
    "overlay",
    "virtio_rng",
];

/// What the agent loads when the VM has network devices.
pub const NETWORK: [&str; 1] = ["virtio_net"];

/// What the agent loads when the VM has disks, with the file system that they may hold.
pub const DISK: [&str; 3] = ["virtio_scsi", "sd_mod", "ext4"];

/// What the agent loads when a container has the device for tunnels.
pub const TUN: [&str; 1] = ["tun"];

/// `virtio` uses symbols of `virtio_ring` without saying that it depends on it.
const BEFORE: [(&str, &str); 1] = [("virtio", "virtio_ring")];

/// The modules of a kernel by name, still as they were packed.
#[derive(Debug, Default)]
pub struct Available {
    files: BTreeMap<String, Vec<u8>>,
    builtin: BTreeSet<String>,
}

impl Available {
    /// Adds a file below the modules' directory; others than modules are ignored.
    pub fn add(&mut self, path: &str, content: Vec<u8>) {
        let name = path.rsplit('/').next().unwrap_or(path);
        if name == "modules.builtin" {
            let lines = String::from_utf8_lossy(&content).into_owned();
            self.builtin.extend(lines.lines().filter_map(module_name));
        } else if let Some(name) = module_name(name) {
            self.files.insert(name, content);
        }
    }

    /// Whether a file is worth keeping for [`Available::add`].
    pub fn wants(path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        name == "modules.builtin" || module_name(name).is_some()
    }

    /// The wanted modules and all they depend on, each after what it depends on, without what is
    /// `loaded` already.
    pub fn select(
        &self,
        wanted: &[&str],
        loaded: &[(String, Vec<u8>)],
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let mut chosen = Vec::new();
        let mut seen: BTreeSet<String> = loaded.iter().map(|(name, _)| name.clone()).collect();
        for name in wanted {
            self.visit(name, &mut seen, &mut chosen)?;
        }
        Ok(chosen)
    }

    fn visit(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        chosen: &mut Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(packed) = self.files.get(name) else {
            bail!("the kernel has no module `{name}`, neither loadable nor built in");
        };
        let module = decompress(packed).with_context(|| format!("module {name}"))?;
        let mut needed = depends(&module).with_context(|| format!("module {name}"))?;
        let unsaid = BEFORE.iter().filter(|(module, _)| *module == name);
        needed.extend(unsaid.map(|(_, needed)| (*needed).to_owned()));
        for name in needed {
            self.visit(&name, seen, chosen)?;
        }
        chosen.push((name.to_owned(), module));
        Ok(())
    }
}

/// `virtio_mmio` for `kernel/drivers/virtio/virtio_mmio.ko.xz`: the kernel takes `-` and `_` for the same.
fn module_name(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let stem =
        [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().find_map(|end| name.strip_suffix(end))?;
    Some(stem.replace('-', "_"))
}

/// The `depends=` entries of a module's `.modinfo` section.
fn depends(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module).context("it is not an ELF file")?;
    let section = file.section_by_name(".modinfo").context("it has no .modinfo section")?;
    let data = section.data().context("read .modinfo")?;
    let entries = data.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut names = Vec::new();
    for entry in entries {
        if let Some(list) = entry.strip_prefix("depends=") {
            names.extend(list.split(',').filter(|n| !n.is_empty()).map(|n| n.replace('-', "_")));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        assert_eq!(module_name("a/b/virtio-rng.ko.xz").as_deref(), Some("virtio_rng"));
        assert_eq!(module_name("modules.order"), None);
    }

    #[test]
    fn built_in_ones_are_not_needed_and_missing_ones_are_named() {
        let mut available = Available::default();
        available.add("lib/modules/6/modules.builtin", b"kernel/fs/fuse/fuse.ko\n".to_vec());
        assert!(available.select(&["fuse"], &[]).unwrap().is_empty());
        let error = available.select(&["overlay"], &[]).unwrap_err().to_string();
        assert!(error.contains("`overlay`"), "{error}");
    }

    #[test]
    fn what_is_no_module_is_refused() {
        let mut available = Available::default();
        available.add("x/overlay.ko", b"text".to_vec());
        assert!(available.select(&["overlay"], &[]).is_err());
    }
}
