//! Control groups for processes of the host that stand for a container without being it: those of
//! a virtual machine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use runhcs_compute::{ContainerId, Result};
use runhcs_systemd::Whose;

use crate::cgroups::{
    Cgroup, CgroupDriver, CgroupPaths, Limits, Request, ScopeOptions, SystemdScope, plan_scope,
};

/// Control groups that are to be made, and their limits.
#[derive(Clone, Debug)]
pub struct ProcessGroup {
    id: ContainerId,
    cgroup: Cgroup,
    /// Set if systemd is to make them.
    options: Option<ScopeOptions>,
    limits: Limits,
}

/// What a process group is asked for.
#[derive(Clone, Copy, Debug)]
pub struct ProcessGroupOptions<'a> {
    /// The container that the processes stand for.
    pub id: &'a ContainerId,
    /// `linux.cgroupsPath`
    pub path: Option<&'a Path>,
    /// The limits, without those for devices.
    pub resources: Option<&'a LinuxResources>,
    /// May ask for properties of the unit, if systemd makes the groups.
    pub annotations: Option<&'a HashMap<String, String>>,
    /// Who makes the groups.
    pub driver: CgroupDriver,
}

impl ProcessGroup {
    /// Works out the groups and the limits. Where the system has no control groups, there are none.
    ///
    /// # Errors
    /// Names the field that is wrong; systemd can't be reached.
    pub fn plan(options: ProcessGroupOptions<'_>) -> Result<Self> {
        let ProcessGroupOptions { id, path, resources, annotations, driver } = options;
        if driver == CgroupDriver::Systemd {
            let request = Request { id, path, resources, annotations, driver, rootless: false };
            let (cgroup, options, limits) = plan_scope(&request, Whose::System, false)?;
            return Ok(Self { id: id.clone(), cgroup, options: Some(options), limits });
        }
        let paths = CgroupPaths::new(id, path)?;
        let resources = resources.filter(|_| paths != CgroupPaths::None);
        let limits = Limits { devices: None, ..Limits::parse(&paths, resources)? };
        let cgroup = Cgroup { paths, scope: None };
        Ok(Self { id: id.clone(), cgroup, options: None, limits })
    }

    /// What is to be removed in the end.
    pub fn paths(&self) -> &CgroupPaths {
        &self.cgroup.paths
    }

    /// What systemd knows the groups as, if it makes them. To be removed in the end, too.
    pub fn scope(&self) -> Option<&SystemdScope> {
        self.cgroup.scope.as_ref()
    }

    /// The directories; a process enters each by its file `cgroup.procs`.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.cgroup.directories()
    }

    /// Makes the groups. systemd makes them only around a process: `placeholder`, which has to live
    /// until another one has entered.
    ///
    /// # Errors
    /// If they have processes of others in them, or the kernel or systemd refuse a limit.
    pub fn create(&self, placeholder: u32) -> Result<()> {
        self.cgroup.refuse_used()?;
        self.cgroup.create(&self.limits)?;
        self.cgroup.surround(&self.id, placeholder, self.options.as_ref(), &self.limits)
    }

    /// Changes limits of groups that were made; fine if there are none.
    ///
    /// # Errors
    /// Names the field that is wrong; the kernel or systemd refuse a limit.
    pub fn update(
        paths: CgroupPaths,
        scope: Option<SystemdScope>,
        resources: &LinuxResources,
    ) -> Result<()> {
        if paths == CgroupPaths::None {
            return Ok(());
        }
        let limits = Limits { devices: None, ..Limits::parse(&paths, Some(resources))? };
        Cgroup { paths, scope }.update(limits)
    }

    /// Removes groups that were made; fine if there are none. Their processes have ended.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove(paths: CgroupPaths, scope: Option<SystemdScope>) -> Result<()> {
        Cgroup { paths, scope }.remove()
    }
}
