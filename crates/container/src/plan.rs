//! A checked configuration.

use std::path::PathBuf;

use oci_spec::runtime::{Hook, Process};
use runhcs_compute::{Error, Result, Status};
use serde::{Deserialize, Serialize};

use crate::CreateOptions;
use crate::cgroups::{self, Cgroup, CgroupPaths, Limits, ScopeOptions, SystemdScope};
use crate::credentials::Credentials;
use crate::error::invalid;
use crate::hooks::{Environment, HookPoint, HookSubject, Surroundings};
use crate::ids::{self, IdMaps};
use crate::intel_rdt::{RdtGroup, RdtPlan};
use crate::labels::Labels;
use crate::namespaces::Namespaces;
use crate::net_devices::NetDevices;
use crate::program::Program;
use crate::rootfs::RootPlan;
use crate::scheduling::{Affinity, MemoryPolicy, Personality, Scheduling};
use crate::seccomp::{Filter, Moment};
use crate::sysctls::Sysctls;

/// All that a container can leave in the system, known before any of it exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Its id.
    pub id: runhcs_compute::ContainerId,
    /// Where the start FIFO is.
    pub runtime_dir: PathBuf,
    /// Its control groups.
    pub cgroups: CgroupPaths,
    /// What systemd knows them as, if it makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<SystemdScope>,
    /// Its part of Intel RDT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<RdtGroup>,
    /// What to run after `start`.
    pub poststart: Vec<Hook>,
    /// What to run after `delete`.
    pub poststop: Vec<Hook>,
    /// What hooks are told.
    pub(crate) subject: HookSubject,
}

/// A checked configuration, ready to be created.
#[derive(Debug)]
pub struct Plan<'a> {
    pub(crate) options: CreateOptions<'a>,
    pub(crate) process: &'a Process,
    pub(crate) namespaces: Namespaces,
    /// Of a new user namespace, or those that one which is joined is said to have.
    pub(crate) id_maps: Option<IdMaps>,
    /// Device nodes can't be made in a user namespace, whoever made that.
    pub(crate) may_mknod: bool,
    pub(crate) root: RootPlan<'a>,
    pub(crate) cgroup: Cgroup,
    pub(crate) scope: Option<ScopeOptions>,
    pub(crate) limits: Limits,
    pub(crate) credentials: Credentials<'a>,
    pub(crate) filter: Option<Filter>,
    pub(crate) program: Program,
    pub(crate) labels: Labels<'a>,
    pub(crate) sysctls: Sysctls,
    pub(crate) scheduling: Scheduling,
    pub(crate) personality: Option<Personality>,
    pub(crate) memory_policy: Option<MemoryPolicy>,
    /// Who is to own the control group, if it is mounted writable.
    pub(crate) group_owner: Option<u32>,
    pub(crate) rdt: Option<RdtPlan>,
    pub(crate) net_devices: NetDevices,
    pub(crate) subject: HookSubject,
    resources: Resources,
}

impl<'a> Plan<'a> {
    /// Checks everything that can be checked without changing anything.
    ///
    /// # Errors
    /// Names the field of `config.json` that is wrong or that this engine can't honour.
    pub fn new(options: CreateOptions<'a>) -> Result<Self> {
        let spec = options.spec;
        let linux = spec.linux().as_ref().ok_or_else(|| invalid("linux", "is missing"))?;
        let process = spec.process().as_ref().ok_or_else(|| invalid("process", "is missing"))?;
        let namespaces = Namespaces::from_spec(spec)?;
        if spec.hostname().as_deref().is_some_and(|n| !n.is_empty())
            && !namespaces.has(libc::CLONE_NEWUTS)
        {
            return Err(invalid("hostname", "needs a uts namespace in linux.namespaces"));
        }
        let terminal = process.terminal() == Some(true);
        if terminal && options.console_socket.is_none() {
            return Err(invalid(
                "process.terminal",
                "is set, but no console socket was given to send the terminal to",
            ));
        }
        if !terminal && options.console_socket.is_some() {
            return Err(invalid("process.terminal", "is not set, but a console socket was given"));
        }
        // For further processes only, but what is wrong with it is wrong now.
        Affinity::new(process.exec_cpu_affinity().as_ref())?;
        let credentials = Credentials::new(process)?;
        let given = [linux.uid_mappings(), linux.gid_mappings()];
        let given = given.into_iter().flatten().any(|mappings| !mappings.is_empty());
        let mapped =
            namespaces.is_new(libc::CLONE_NEWUSER) || namespaces.has(libc::CLONE_NEWUSER) && given;
        let id_maps = mapped.then(|| IdMaps::new(spec)).transpose()?;
        if !namespaces.has(libc::CLONE_NEWUSER) && !rustix::process::geteuid().is_root() {
            return Err(invalid(
                "linux.namespaces",
                "an ordinary user's container needs a user namespace; `runhcs spec --rootless` \
                 writes a configuration that has one",
            ));
        }
        let planned = cgroups::plan(&cgroups::Request {
            id: options.id,
            path: linux.cgroups_path().as_deref(),
            resources: linux.resources().as_ref(),
            annotations: spec.annotations().as_ref(),
            driver: options.cgroup_driver,
            rootless: options.rootless,
        })?;
        let net_devices = NetDevices::new(spec)?;
        if !net_devices.is_empty() && !namespaces.has(libc::CLONE_NEWNET) {
            let why = "needs a network namespace in linux.namespaces to move them to";
            return Err(invalid("linux.netDevices", why));
        }
        let rdt =
            linux.intel_rdt().as_ref().map(|rdt| RdtPlan::new(rdt, options.id)).transpose()?;
        let subject = HookSubject::new(options.id, spec, options.bundle);
        let resources = Resources {
            id: options.id.clone(),
            runtime_dir: options.runtime_dir.to_owned(),
            cgroups: planned.cgroup.paths.clone(),
            scope: planned.cgroup.scope.clone(),
            rdt: rdt.as_ref().map(|rdt| rdt.group().clone()),
            poststart: HookPoint::Poststart.hooks(spec).to_vec(),
            poststop: HookPoint::Poststop.hooks(spec).to_vec(),
            subject: subject.clone(),
        };
        // An ordinary user has no rights that root of the user namespace lacks.
        let foreign = namespaces.has(libc::CLONE_NEWUSER)
            && namespaces.is_new(libc::CLONE_NEWNS)
            && rustix::process::geteuid().is_root();
        let root = RootPlan::new(spec, foreign)?;
        let uid = process.user().uid();
        // Of an existing user namespace the ids may not be known.
        let owner = match (&id_maps, namespaces.has(libc::CLONE_NEWUSER)) {
            (Some(maps), _) => maps.host_uid(uid),
            (None, false) => Some(uid),
            (None, true) => None,
        };
        let delegates = namespaces.is_new(libc::CLONE_NEWCGROUP) && root.has_writable_cgroups();
        Ok(Self {
            group_owner: owner.filter(|_| delegates),
            process,
            may_mknod: !namespaces.has(libc::CLONE_NEWUSER) && !ids::in_user_namespace(),
            root,
            cgroup: planned.cgroup,
            scope: planned.scope,
            limits: planned.limits,
            filter: linux.seccomp().as_ref().map(Filter::new).transpose()?,
            program: Program::new(process, options.inherited_fds)?,
            labels: Labels::new(process)?,
            sysctls: Sysctls::new(spec, &namespaces)?,
            scheduling: Scheduling::new(process)?,
            personality: linux.personality().as_ref().map(Personality::new).transpose()?,
            memory_policy: linux.memory_policy().as_ref().map(MemoryPolicy::new).transpose()?,
            rdt,
            net_devices,
            namespaces,
            id_maps,
            credentials,
            subject,
            resources,
            options,
        })
    }

    /// What [`Plan::create`] is going to leave in the system.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The filter, if this is when it is to be installed.
    pub(crate) fn filter_at(&self, moment: Moment) -> Option<&Filter> {
        let no_new_privileges = self.process.no_new_privileges() == Some(true);
        self.filter.as_ref().filter(|filter| filter.moment(no_new_privileges) == moment)
    }

    /// Whether hooks run before init sets anything up.
    pub(crate) fn has_early_hooks(&self) -> bool {
        let early = [HookPoint::Prestart, HookPoint::CreateRuntime];
        early.into_iter().any(|point| !point.hooks(self.options.spec).is_empty())
    }

    pub(crate) fn run_hooks(&self, point: HookPoint, status: Status, pid: u32) -> Result<()> {
        let surroundings = match point {
            // As runc has it: relative paths lead into the root file system.
            HookPoint::CreateContainer => {
                Surroundings { cwd: Some(self.root.path()), environment: Environment::Given(&[]) }
            }
            HookPoint::StartContainer => {
                let environment = Environment::Given(self.program.environment());
                Surroundings { cwd: None, environment }
            }
            _ => Surroundings::default(),
        };
        self.subject.run_in(point, point.hooks(self.options.spec), status, pid, surroundings)
    }
}

/// Refuses to go on with a status that doesn't allow the operation.
pub(crate) fn expect(
    operation: &'static str,
    id: &runhcs_compute::ContainerId,
    status: Status,
    allowed: &[Status],
) -> Result<()> {
    if allowed.contains(&status) {
        return Ok(());
    }
    Err(Error::InvalidStatus { operation, id: id.clone(), status })
}
