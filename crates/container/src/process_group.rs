//! Control groups for processes of the host that stand for a container without being it: those of
//! a virtual machine.

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use runhcs_compute::{ContainerId, Result};

use crate::cgroups::{Cgroup, CgroupPaths, Limits};

/// Control groups that are to be made, and their limits.
#[derive(Clone, Debug)]
pub struct ProcessGroup {
    paths: CgroupPaths,
    limits: Limits,
}

impl ProcessGroup {
    /// Works out the groups for `linux.cgroupsPath` and the limits for `linux.resources`. Where the
    /// system has no control groups, there are none.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn plan(
        id: &ContainerId,
        configured: Option<&Path>,
        resources: Option<&LinuxResources>,
    ) -> Result<Self> {
        let paths = CgroupPaths::new(id, configured)?;
        let resources = resources.filter(|_| paths != CgroupPaths::None);
        let limits = Limits::parse(&paths, resources)?;
        Ok(Self { paths, limits: Limits { devices: None, ..limits } })
    }

    /// What is to be removed in the end.
    pub fn paths(&self) -> &CgroupPaths {
        &self.paths
    }

    /// The directories; a process enters each by its file `cgroup.procs`.
    pub fn directories(&self) -> Vec<PathBuf> {
        own(self.paths.clone()).directories()
    }

    /// Makes the groups.
    ///
    /// # Errors
    /// If they have processes of others in them, or the kernel refuses a limit.
    pub fn create(&self) -> Result<()> {
        let cgroup = own(self.paths.clone());
        cgroup.refuse_used()?;
        cgroup.create(&self.limits).map(drop)
    }

    /// Removes groups that were made; fine if there are none. Their processes have ended.
    pub fn remove(paths: CgroupPaths) -> Result<()> {
        own(paths).remove()
    }
}

/// Groups that this engine makes itself, not systemd.
fn own(paths: CgroupPaths) -> Cgroup {
    Cgroup { paths, scope: None }
}
