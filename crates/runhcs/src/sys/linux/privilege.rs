//! Who calls, and what an ordinary user's containers do without.

use std::path::{Path, PathBuf};

use anyhow::bail;
use runhcs_container::CgroupDriver;

use super::cli::Rootless;
use crate::globals::Globals;

impl Globals {
    /// Whether containers may do without control groups that can't be had.
    pub fn rootless(&self) -> bool {
        match self.args.system.rootless {
            Rootless::True => true,
            Rootless::False => false,
            Rootless::Auto => !is_privileged(),
        }
    }

    /// Who makes the control groups of process-isolated containers.
    pub fn cgroup_driver(&self) -> CgroupDriver {
        match self.args.system.systemd_cgroup {
            true => CgroupDriver::Systemd,
            false => CgroupDriver::Directories,
        }
    }
}

/// Whether the caller is root outside of all user namespaces.
pub fn is_privileged() -> bool {
    rustix::process::geteuid().is_root() && !runhcs_container::in_user_namespace()
}

/// Where state is unless `--root` says otherwise: for ordinary users, and for those who are root in
/// a user namespace only, in the directory that is theirs while they are logged in.
pub fn default_root() -> anyhow::Result<PathBuf> {
    let system = PathBuf::from("/run/runhcs");
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let private = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        // As runc has it: the name of a user namespace's own root, as in a container, is root.
        let of_a_user = variable("USER").is_none_or(|name| name != "root");
        let private = private.filter(|_| of_a_user && runhcs_container::in_user_namespace());
        return Ok(private.map_or(system, |directory| directory.join("runhcs")));
    }
    let usual = || Some(Path::new("/run/user").join(uid.to_string())).filter(|path| path.is_dir());
    match private.or_else(usual) {
        Some(directory) => Ok(directory.join("runhcs")),
        None => bail!(
            "there is no directory for the state of user {uid}'s containers: set XDG_RUNTIME_DIR \
             or give --root"
        ),
    }
}
