//! `sync`: has a VM follow what was changed in its pod's network namespace.

use anyhow::{Context, Result, bail};

use crate::existing::Existing;
use crate::globals::Globals;
use crate::sys::cli::SyncArgs;
use crate::sys::vm::{Op, Vm};

/// Has the VM follow, and returns when it has.
pub fn run(globals: &Globals, args: &SyncArgs) -> Result<u8> {
    let store = &globals.store;
    let (id, host) = match (&args.id, &args.network) {
        (Some(id), _) => (id.clone(), None),
        (None, Some(namespace)) => {
            let config = store.namespaces().load(&namespace.to_lowercase())?;
            let config =
                config.with_context(|| format!("no VM has the network namespace {namespace}"))?;
            (config.container_id().clone(), Some(config.host_unique_id().to_owned()))
        }
        (None, None) => bail!("name a container, or a network namespace by --network"),
    };
    let (_, existing) = Existing::find(store, &id)?;
    let vm = Vm::of(&existing.record).with_context(|| {
        format!("container {id} is not in a VM; it sees every change of its network by itself")
    })?;
    if let (Some(host), Some(place)) = (host, &existing.record.vm)
        && host != place.host_unique_id
    {
        bail!("the network namespace belongs to an earlier VM of {}", place.host_id);
    }
    vm.request(&id, Op::Sync)?;
    Ok(0)
}
