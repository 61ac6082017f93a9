//! A utility VM that runs, and the containers in it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use runhcs_compute::ContainerId;
use runhcs_hcs::documents::{Guest as DiskGuest, scsi_disk};
use runhcs_hcs::options::{VmOptions, WcowOptions};
use runhcs_hcs::schema::SystemExitStatus;
use runhcs_hcs::service::{System, grant_access};
use runhcs_state::{Entry, Record, Store};

use super::boot::{Boot, OwnDisk};
use super::holdings::{Holdings, Place, SharedLayers};
use super::network::Network;
use super::slots::Slots;
use super::{lcow, wcow};
use crate::existing::config;
use crate::globals::Globals;
use crate::sys::service::{Guest, vm_id};

/// A VM that runs.
pub struct Machine {
    pub system: System,
    pub guest: Guest,
    pub options: VmOptions,
    pub windows: WcowOptions,
    pub slots: Arc<Slots>,
    pub layers: SharedLayers,
    /// Who the VM belongs to.
    host: Record,
    store: Store,
    network: Mutex<Option<Network>>,
    /// What each container holds. Whoever works for a container has its lock.
    containers: Mutex<HashMap<ContainerId, Arc<Mutex<Holdings>>>>,
    own_disk: Mutex<Option<OwnDisk>>,
}

impl Machine {
    /// Makes the VM for a host and starts it. If that fails, nothing is left.
    pub fn start(
        globals: &Globals,
        host: &Record,
        entry: &Entry,
        console: Option<&str>,
    ) -> Result<Self> {
        let (id, spec) = (vm_id(&host.id), config(entry)?);
        let boot = Boot::new(&id, &host.owner, &spec, &globals.config.boot_files(), console)?;
        let system = System::create(&id, &boot.document)?;
        let ended = |error| {
            // Its last handle ends it in any case.
            let _ = system.terminate();
            error
        };
        system.start().map_err(|failure| ended(failure.into()))?;
        let network = host
            .netns
            .as_ref()
            .map(|namespace| Network::attach(&system, boot.guest, &namespace.to_string_lossy()));
        let network = network.transpose().map_err(ended)?;
        Ok(Self {
            system,
            guest: boot.guest,
            options: boot.options,
            windows: boot.windows,
            slots: boot.slots,
            layers: SharedLayers::default(),
            host: host.clone(),
            store: globals.store.clone(),
            network: Mutex::new(network),
            containers: Mutex::default(),
            own_disk: Mutex::new(boot.own_disk),
        })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.system.id()
    }

    /// Waits for its end.
    pub fn wait(&self) -> Result<SystemExitStatus> {
        Ok(self.system.wait(Duration::MAX)?.unwrap_or_default())
    }

    /// Deletes the VM's own files, once it has ended.
    pub fn clean_up(&self) {
        drop(self.own_disk.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Creates the container of an entry of the store in the VM. If that fails, nothing is left of
    /// it.
    pub fn create_container(&self, id: &ContainerId) -> Result<System> {
        let entry = self.store.entry(id)?;
        let record = entry.record()?;
        let mine = |place: &runhcs_state::VmPlace| place.host_unique_id == self.host.unique_id;
        if !record.vm.as_ref().is_some_and(mine) {
            bail!("container {id} is not to be in the virtual machine of {}", self.host.id);
        }
        if record.netns.is_some() && record.netns != self.host.netns {
            bail!(
                "windows.network.networkNamespace: container {id} can't have another network \
                 namespace than its virtual machine, which {} gave it",
                self.host.id
            );
        }
        let spec = config(&entry)?;
        match (self.guest, spec.linux().is_some()) {
            (Guest::Linux, false) => bail!(
                "container {id} is a Windows container, but the virtual machine of {} has a Linux \
                 guest",
                self.host.id
            ),
            (Guest::Windows, true) => bail!(
                "container {id} is a Linux container, but the virtual machine of {} has a Windows \
                 guest",
                self.host.id
            ),
            _ => {}
        }
        let holdings = self.holdings(id);
        let mut holdings = holdings.lock().unwrap_or_else(PoisonError::into_inner);
        if !holdings.is_empty() {
            bail!("container {id} is in the virtual machine already");
        }
        let created = match self.guest {
            Guest::Linux => lcow::create(self, &mut holdings, &record, &spec),
            Guest::Windows => wcow::create(self, &mut holdings, &record, &spec),
        };
        if created.is_err()
            && let Err(error) = holdings.release(&self.system, true)
        {
            tracing::warn!("undo the creation of {id}: {error:#}");
        }
        created
    }

    /// Frees what a container holds: everything, or its own disks only. Succeeds if it holds
    /// nothing.
    pub fn release(&self, id: &ContainerId, all: bool) -> Result<()> {
        let holdings = self.holdings(id);
        let outcome =
            holdings.lock().unwrap_or_else(PoisonError::into_inner).release(&self.system, all);
        if all {
            self.containers.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        }
        outcome
    }

    /// Has the VM follow its network namespace.
    pub fn sync_network(&self) -> Result<()> {
        match &mut *self.network.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(network) => network.sync(&self.system, self.guest),
            None => bail!("the virtual machine of {} has no network namespace", self.host.id),
        }
    }

    /// Attaches a container's writable disk and returns where the guest mounts it.
    pub fn add_scratch(&self, holdings: &mut Holdings, disk: &Path) -> Result<String> {
        use runhcs_hcs::documents::guest_paths::{linux_scsi_mount, windows_scsi_mount};
        let file = disk.to_str().context("the writable disk's path is not Unicode")?;
        std::fs::metadata(disk).with_context(|| format!("find the writable disk {file}"))?;
        grant_access(self.id(), disk)?;
        let (lease, number) = (self.slots.scsi()?, self.slots.number());
        let (mount, guest) = match self.guest {
            Guest::Linux => (linux_scsi_mount(number), DiskGuest::Linux),
            Guest::Windows => (windows_scsi_mount(number), DiskGuest::Windows),
        };
        let change = scsi_disk(lease.place, file, false, &mount, guest);
        holdings.add(&self.system, change, Place::Scsi(lease), true)?;
        Ok(mount)
    }

    /// Refuses folders that a container could write to, if the VM isn't to have such.
    pub fn check_share(&self, source: &str, read_only: bool) -> Result<()> {
        if self.options.no_writable_shares && !read_only {
            bail!("mounts: {source} is writable, but the VM may have no writable shares");
        }
        Ok(())
    }

    fn holdings(&self, id: &ContainerId) -> Arc<Mutex<Holdings>> {
        let mut containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(containers.entry(id.clone()).or_default())
    }
}
