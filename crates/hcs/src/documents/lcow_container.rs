//! A Linux container in a Linux guest. The guest's compute service takes the configuration itself,
//! less what is the host's business.

use oci_spec::runtime::{Root, Spec, Windows, WindowsNetwork};

use super::guest_paths::{linux_container, linux_rootfs};
use crate::options::{Annotations, names};
use crate::schema::{ComputeSystem, HostedSystem, Version};
use crate::{Invalid, Result};

/// The document of a container in the virtual machine `vm_id`. `hosted` is [`lcow_hosted`]'s.
pub fn lcow_container(owner: &str, vm_id: &str, hosted: HostedSystem) -> ComputeSystem {
    ComputeSystem {
        owner: owner.to_owned(),
        schema_version: Some(Version::V2_1),
        hosting_system_id: vm_id.to_owned(),
        hosted_system: Some(hosted),
        should_terminate_on_last_handle_closed: true,
        ..ComputeSystem::default()
    }
}

/// The guest's part of it. `scratch` is the directory in the guest for what the container writes.
///
/// # Errors
/// A configuration without `linux`; an annotation that isn't a truth value.
pub fn lcow_hosted(spec: &Spec, id: &str, scratch: &str) -> Result<HostedSystem> {
    if spec.linux().is_none() {
        return Err(Invalid::new("linux", "missing; a Linux container needs it"));
    }
    Ok(HostedSystem {
        schema_version: Some(Version::V2_1),
        oci_bundle_path: linux_container(id),
        oci_specification: Some(guest_spec(spec, id)?),
        scratch_dir_path: scratch.to_owned(),
        ..HostedSystem::default()
    })
}

/// What an absent root means: the type's own default is read-only.
fn writable_root() -> Root {
    let mut root = Root::default();
    root.set_readonly(None);
    root
}

/// The configuration as the guest is to see it: hooks run on the host, the guest has its own
/// control groups, and of the Windows part only the network namespace says something there.
fn guest_spec(spec: &Spec, id: &str) -> Result<Spec> {
    let mut guest = spec.clone();
    guest.set_hooks(None);
    let mut root = guest.root().clone().unwrap_or_else(writable_root);
    root.set_path(linux_rootfs(id).into());
    guest.set_root(Some(root));
    let network = spec.windows().as_ref().and_then(|windows| windows.network().as_ref());
    let namespace = network.and_then(|network| network.network_namespace().clone());
    guest.set_windows(namespace.filter(|id| !id.is_empty()).map(|namespace| {
        let mut network = WindowsNetwork::default();
        network.set_network_namespace(Some(namespace));
        let mut windows = Windows::default();
        windows.set_network(Some(network));
        windows
    }));
    if let Some(mut linux) = guest.linux().clone() {
        linux.set_cgroups_path(None);
        if Annotations::of(spec).flag(names::PRIVILEGED)?.unwrap_or(false) {
            linux.set_seccomp(None);
        }
        if let Some(resources) = linux.resources_mut() {
            // The guest's control groups hold nothing for these.
            resources.set_devices(None);
            resources.set_pids(None);
            resources.set_block_io(None);
            resources.set_hugepage_limits(None);
            resources.set_network(None);
        }
        guest.set_linux(Some(linux));
    }
    Ok(guest)
}
