//! `sync`: has a VM follow what was changed in its pod's network namespace. It does so by itself
//! shortly after each change; a network plugin that has to know when, asks.

use anyhow::{Context, Result, bail};
use runhcs_compute::ContainerId;

use crate::existing::Existing;
use crate::globals::Globals;
use crate::sys::cli::SyncArgs;

/// Has the VM follow, and returns when it has.
pub fn run(globals: &Globals, args: &SyncArgs) -> Result<u8> {
    let store = &globals.store;
    let (id, host) = match (&args.id, &args.network) {
        (Some(id), _) => (id.clone(), None),
        (None, Some(path)) => {
            let config = store.namespaces().load(&path.to_string_lossy())?;
            let config = config
                .with_context(|| format!("no VM has the network namespace {}", path.display()))?;
            (config.container_id().clone(), Some(config.host_unique_id().to_owned()))
        }
        (None, None) => bail!("name a container, or a network namespace by --network"),
    };
    let (_, existing) = Existing::find(store, &id)?;
    let vm = vm(&id, &existing)?;
    if let (Some(host), Some(place)) = (host, &existing.record.vm)
        && host != place.host_unique_id
    {
        bail!("the network namespace belongs to an earlier VM of {}", place.host_id);
    }
    vm.sync_network()?;
    Ok(0)
}

fn vm<'a>(id: &ContainerId, existing: &'a Existing) -> Result<&'a runhcs_uvm::Vm> {
    let container = existing.vm_container();
    let container = container.with_context(|| {
        format!("container {id} is not in a VM; it sees every change of its network by itself")
    })?;
    Ok(&container.vm)
}
