//! The steps of the creation flow on Windows: the Host Compute Service on this host, or the VM
//! shim; and the container shim, which stands for a container's process in either case.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use runhcs_compute::ComputeSystem;
use runhcs_hcs::documents::{LayerFolders, WindowsContainer, argon, layers};
use runhcs_hcs::service::{System, host_facts};
use runhcs_spec::Isolation;
use runhcs_state::{ProcessHandle, VmPlace};

use super::layers::HostLayers;
use super::service::{Service as Existing, vm_id};
use super::vm::{Op, Vm};
use super::{container_shim, mounts, process, vm};
use crate::create::{Claimed, Service, Transaction};
use crate::existing::{Main, value};

/// How long a shim may take to end by itself once what it stands for is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// The steps for one container.
pub struct CreationService<'a> {
    claimed: Claimed<'a>,
}

impl<'a> CreationService<'a> {
    /// Begins.
    pub fn new(claimed: Claimed<'a>) -> Self {
        Self { claimed }
    }

    /// Starts the container shim while `_system` is open, for a container ends with the last
    /// handle to it.
    fn launch_shim(&self, flow: &mut Transaction, _system: impl Sized) -> Result<Main> {
        let Claimed { globals, args, entry, .. } = &self.claimed;
        let target = container_shim::Target { id: &args.id, exec: None };
        let pid = flow.acquire(
            "shim",
            || Ok(container_shim::launch(globals, &target, args.shim_log.as_ref())?.leave()),
            |pid| {
                let pid = *pid;
                Box::new(move || match ProcessHandle::of(pid)? {
                    Some(shim) => process::end(shim, Duration::ZERO),
                    None => Ok(()),
                })
            },
        )?;
        let shim = ProcessHandle::of(pid)?.context("the container shim ended at once")?;
        let main = Main { process: shim, guest_pid: None };
        flow.step("main", || Ok(entry.put(value::MAIN, &main)?))?;
        Ok(main)
    }
}

impl Service for CreationService<'_> {
    type Vm = Vm;

    fn create(&mut self, flow: &mut Transaction) -> Result<Main> {
        let Claimed { globals, args, bundle, record, entry } = &self.claimed;
        let spec = &bundle.spec;
        if runhcs_spec::windows_isolation(spec) == Isolation::Vm {
            bail!("container {} is to be in a VM, but has none", args.id);
        }
        let (directories, pipes) = flow.step("mounts", || mounts::on_host(spec))?;
        // A root that is a volume already is the caller's, with its layers.
        let prepared = record.rootfs.to_string_lossy().into_owned();
        let folders = LayerFolders::of(spec)?;
        let root = if prepared.is_empty() {
            let attached = HostLayers::of(&folders);
            flow.step("resources", || Ok(entry.put(value::RESOURCES, &attached)?))?;
            let undo = attached.clone();
            flow.acquire(
                "layers",
                || attached.attach(&folders),
                |_| Box::new(move || undo.release()),
            )?
        } else {
            prepared
        };
        let seen = folders.read_only.iter().map(|folder| (folder.as_str(), folder.as_str()));
        let document = argon(
            spec,
            &globals.owner,
            WindowsContainer {
                layers: layers(seen),
                root,
                directories,
                pipes,
                namespace: record.netns.as_ref().map(|id| id.to_string_lossy().into_owned()),
                processors: host_facts().processors,
            },
        )?;
        let undo = Existing::open(&globals.store, entry, record, None)?;
        let system = flow.step_with_undo(
            "container",
            move || Ok(undo.container().delete()?),
            || Ok(System::create(args.id.as_str(), &document)?),
        )?;
        self.launch_shim(flow, system)
    }

    /// The VM shim gives its VM what the namespace has.
    fn prepare_network(&mut self, _flow: &mut Transaction) -> Result<()> {
        Ok(())
    }

    fn launch_vm(&mut self, flow: &mut Transaction) -> Result<Vm> {
        let Claimed { globals, args, record, entry, .. } = &self.claimed;
        let vm = Vm::of(record).context("the container has no VM")?;
        let pid = flow.acquire(
            "vm",
            || {
                let launch = vm::Launch {
                    host: &args.id,
                    console: args.vm_console.as_deref(),
                    log: args.vm_log.as_ref(),
                };
                Ok(vm::launch(globals, &launch)?.leave())
            },
            |pid| {
                let (pid, id) = (*pid, vm_id(&args.id));
                Box::new(move || end_vm(&id, ProcessHandle::of(pid)?))
            },
        )?;
        let shim = ProcessHandle::of(pid)?.context("the VM shim ended at once")?;
        flow.step("vm-shim", || Ok(entry.put(vm::VM_SHIM, &shim)?))?;
        Ok(vm)
    }

    fn join_vm(&mut self, place: &VmPlace) -> Result<Vm> {
        let host = self.claimed.globals.store.entry(&place.host_id)?;
        let current = host.record()?.unique_id;
        if current != place.host_unique_id {
            bail!("the VM of {} was replaced by another while joining it", place.host_id);
        }
        Vm::of(self.claimed.record).context("the container has no VM")
    }

    fn create_in_vm(&mut self, flow: &mut Transaction, vm: Vm) -> Result<Main> {
        let Claimed { globals, args, record, entry, .. } = &self.claimed;
        let undo = (Existing::open(&globals.store, entry, record, None)?, vm.clone());
        let held = flow.step_with_undo(
            "container",
            move || {
                let (service, vm) = undo;
                service.container().delete()?;
                vm.request(&service.container().id, Op::Unmount).map(drop)
            },
            || vm.request(&args.id, Op::Create),
        )?;
        self.launch_shim(flow, held)
    }
}

/// Ends a VM and its shim. Succeeds if they are gone.
pub fn end_vm(id: &str, shim: Option<ProcessHandle>) -> Result<()> {
    if let Some(system) = System::find(id)? {
        system.end(Duration::from_secs(60))?;
    }
    shim.map_or(Ok(()), |shim| process::end(shim, PATIENCE))
}
