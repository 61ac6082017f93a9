//! Memory and processors that a running QEMU is given.

use anyhow::{Context, ensure};
use qapi::qmp::{self, MemoryBackendMemfdProperties, MemoryBackendProperties, ObjectOptions};

use super::Monitor;

/// How many times memory can be added. Whoever shares the guest's memory has room for eight pieces,
/// of which the machine begins with a few (vhost-user, "Memory region descriptions").
pub const MEMORY_SLOTS: u8 = 4;

impl Monitor {
    /// Adds memory, as the piece of this number. Undone if it fails.
    ///
    /// # Errors
    /// What QEMU says is wrong.
    pub async fn add_memory(&self, piece: u8, mib: u64, huge_pages: bool) -> anyhow::Result<()> {
        let id = format!("memory{piece}");
        let base = MemoryBackendProperties {
            dump: None,
            host_nodes: None,
            merge: None,
            policy: None,
            prealloc: None,
            prealloc_context: None,
            prealloc_threads: None,
            reserve: None,
            share: Some(true),
            x_use_canonical_path_for_ramblock_id: None,
            size: mib << 20,
        };
        let properties = MemoryBackendMemfdProperties {
            base,
            hugetlb: huge_pages.then_some(true),
            hugetlbsize: huge_pages.then_some(2 << 20),
            seal: None,
        };
        let backend = ObjectOptions::memory_backend_memfd {
            id: id.clone(),
            memory_backend_memfd: properties,
        };
        self.execute(qmp::object_add(backend)).await.context("QEMU has no more memory")?;
        let module = qmp::device_add {
            bus: None,
            id: Some(format!("dimm{piece}")),
            driver: "pc-dimm".to_owned(),
            arguments: [("memdev".to_owned(), id.clone().into())].into_iter().collect(),
        };
        if let Err(error) = self.execute(module).await {
            if let Err(error) = self.execute(qmp::object_del { id }).await {
                tracing::warn!(error = format!("{error:#}"), "QEMU keeps memory it doesn't use");
            }
            return Err(error).context("QEMU can't plug memory in");
        }
        Ok(())
    }

    /// Adds virtual CPUs.
    ///
    /// # Errors
    /// If there are no places for so many, or what QEMU says is wrong. Some may be plugged in then.
    pub async fn add_vcpus(&self, count: u32) -> anyhow::Result<()> {
        let places = self.execute(qmp::query_hotpluggable_cpus {}).await?;
        let mut free: Vec<_> =
            places.into_iter().filter(|place| place.qom_path.is_none()).collect();
        ensure!(free.len() >= count as usize, "QEMU has places for {} CPUs", free.len());
        // In the order of their numbers in the guest.
        free.sort_by_key(|place| {
            (place.props.socket_id, place.props.core_id, place.props.thread_id)
        });
        for place in free.into_iter().take(count as usize) {
            let props = serde_json::to_value(&place.props).context("a CPU's place")?;
            let arguments = props.as_object().cloned().unwrap_or_default().into_iter().collect();
            let vcpu = qmp::device_add { bus: None, id: None, driver: place.type_, arguments };
            self.execute(vcpu).await.context("QEMU can't plug a CPU in")?;
        }
        Ok(())
    }
}
