//! A VM's network: an adapter for each endpoint of its compute network namespace.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use runhcs_hcs::Kind;
use runhcs_hcs::documents::{
    AdapterChange, Guest as Side, endpoints, network_adapter, network_namespace,
};
use runhcs_hcs::schema::ModifySettingRequest;
use runhcs_hcs::service::{System, endpoint_properties, namespace_properties};
use uuid::Uuid;

use crate::sys::service::Guest;

/// The network that a VM has been given.
#[derive(Debug)]
pub struct Network {
    namespace: Uuid,
    /// What removes each endpoint's adapter.
    adapters: BTreeMap<Uuid, ModifySettingRequest>,
}

impl Network {
    /// Gives a VM what a namespace has.
    pub fn attach(vm: &System, guest: Guest, namespace: &str) -> Result<Self> {
        let namespace: Uuid = namespace
            .parse()
            .with_context(|| format!("windows.network.networkNamespace: {namespace:?}"))?;
        // It has to be there, whatever the guest.
        let properties = namespace_properties(namespace)?;
        // A Linux guest learns of it with the adapters.
        if guest == Guest::Windows {
            vm.modify(&network_namespace(&properties).add)?;
        }
        let mut network = Self { namespace, adapters: BTreeMap::new() };
        network.sync(vm, guest)?;
        Ok(network)
    }

    /// Has a VM follow what has been changed in its namespace: endpoints that came and went.
    pub fn sync(&mut self, vm: &System, guest: Guest) -> Result<()> {
        let wanted = endpoints(&namespace_properties(self.namespace)?)?;
        let gone: Vec<Uuid> =
            self.adapters.keys().filter(|id| !wanted.contains(id)).copied().collect();
        for endpoint in gone {
            let remove = &self.adapters[&endpoint];
            match vm.modify(remove) {
                Err(failure) if failure.kind != Kind::NotFound => return Err(failure.into()),
                _ => drop(self.adapters.remove(&endpoint)),
            }
        }
        let side = match guest {
            Guest::Linux => Side::Linux,
            Guest::Windows => Side::Windows,
        };
        for endpoint in wanted {
            if self.adapters.contains_key(&endpoint) {
                continue;
            }
            let properties = endpoint_properties(endpoint)?;
            let AdapterChange { announce, change } =
                network_adapter(side, Uuid::new_v4(), self.namespace, &properties);
            if let Some(announce) = announce {
                vm.modify(&announce)?;
            }
            vm.modify(&change.add)?;
            self.adapters.insert(endpoint, change.remove);
        }
        Ok(())
    }
}
