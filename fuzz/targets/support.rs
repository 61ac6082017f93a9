//! What targets share.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use oci_spec::runtime::Spec;
use runhcs_container::{CgroupDriver, CreateOptions, InheritedFds, Plan};

/// Plans a container as `create` does, which changes nothing. What it would leave in the system
/// must come back from the state as it went there.
pub fn plan(spec: &Spec, bundle: &Path) {
    let id = "fuzz".parse().expect("a valid id");
    let terminal = spec.process().as_ref().is_some_and(|process| process.terminal() == Some(true));
    let console_socket = terminal.then(|| OwnedFd::from(UnixStream::pair().expect("sockets").0));
    let plan = Plan::new(CreateOptions {
        id: &id,
        spec,
        bundle,
        runtime_dir: bundle,
        stdio: None,
        console_socket,
        inherited_fds: InheritedFds::default(),
        no_pivot: false,
        no_new_keyring: false,
        cgroup_driver: CgroupDriver::default(),
        rootless: false,
    });
    if let Ok(plan) = plan {
        let json = serde_json::to_vec(plan.resources()).expect("resources can be stored");
        let read = serde_json::from_slice(&json).expect("stored resources can be read");
        assert_eq!(plan.resources(), &read);
    }
}
