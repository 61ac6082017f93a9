//! The steps of the creation flow on Linux: our own engine on this host, or the VM shim and the
//! container shim.

use std::borrow::Cow;
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use runhcs_compute::ComputeSystem;
use runhcs_container::{Container, CreateOptions, Init, NetDevices, Plan, map_mount};
use runhcs_protocol::shim::Disk;
use runhcs_spec::{Console, VmOptions};
use runhcs_state::{Locked, ProcessHandle, Record, VmPlace};
use runhcs_uvm::{Launch, Vm, VmContainer};

use super::guest_spec::{GuestSpec, PodView};
use super::notify_socket;
use super::pidfd_socket::PidfdSocket;
use super::pod_network::PodNetwork;
use super::progress::Progress;
use super::service::vm_of;
use super::{disks, hooks, inherited_fds, shim, terminal, vm_group};
use crate::cli::CreateArgs;
use crate::create::{Claimed, Service, Transaction};
use crate::existing::{Main, value};
use crate::globals::Globals;

/// The steps for one container.
pub struct CreationService<'a> {
    claimed: Claimed<'a>,
    /// A process in the pod's network, where the VM or hooks need one. It may end with the
    /// creation: shims are in the network by then.
    network: Option<PodNetwork>,
    /// What is opened before the container's own VM is started: what can't be had should be known
    /// before that.
    disks: Option<Vec<(Disk, OwnedFd)>>,
    /// Whether a VM that runs already has to be told of new network devices.
    devices_joined: bool,
    pidfd_socket: Option<PidfdSocket>,
}

impl<'a> CreationService<'a> {
    /// Begins.
    pub fn new(claimed: Claimed<'a>) -> Self {
        Self { claimed, network: None, disks: None, devices_joined: false, pidfd_socket: None }
    }

    fn open_disks(&self, flow: &mut Transaction) -> Result<Vec<(Disk, OwnedFd)>> {
        let Claimed { globals, bundle, .. } = &self.claimed;
        let directory = globals.config.scratch_directory();
        flow.step("disks", || disks::open(&bundle.spec, &directory))
    }
}

impl Service for CreationService<'_> {
    type Vm = Vm;

    fn create(&mut self, flow: &mut Transaction) -> Result<Main> {
        let Claimed { globals, args, bundle, entry, .. } = &self.claimed;
        disks::refuse_scratch(&bundle.spec)?;
        let console_socket = args.console_socket.as_deref().map(terminal::connect).transpose()?;
        let pidfd_socket = connect_pidfd_socket(args)?;
        let spec = flow.step("notify-socket", || match args.restore {
            // Its mounts are those that it was checkpointed with.
            Some(_) => Ok(Cow::Borrowed(&bundle.spec)),
            None => notify_socket::arrange(&bundle.spec, entry.dir()),
        })?;
        let plan = flow.step("plan", || {
            Ok(Plan::new(CreateOptions {
                id: &args.id,
                spec: &spec,
                bundle: &bundle.path,
                runtime_dir: entry.dir(),
                stdio: None,
                console_socket,
                inherited_fds: inherited_fds::of_init(args.preserve_fds)?,
                no_pivot: args.no_pivot,
                no_new_keyring: args.no_new_keyring,
                cgroup_driver: globals.cgroup_driver(),
                rootless: globals.rootless(),
            })?)
        })?;
        let resources = plan.resources().clone();
        flow.step("resources", || Ok(entry.put(value::RESOURCES, &resources)?))?;
        let create = || {
            let init = match &args.restore {
                Some(options) => plan.restore(options)?,
                None => plan.create()?,
            };
            Ok(Container { resources: resources.clone(), init: Some(init) })
        };
        let container = flow.acquire("container", create, |container| {
            let container = container.clone();
            Box::new(move || Ok(container.delete()?))
        })?;
        let main = main_process(&container)?;
        flow.step("main", || Ok(entry.put(value::MAIN, &main)?))?;
        send_pidfd(flow, pidfd_socket, &main)?;
        Ok(main)
    }

    fn prepare_network(&mut self, flow: &mut Transaction) -> Result<()> {
        let Claimed { args, bundle, record, .. } = &self.claimed;
        if args.restore.is_some() {
            bail!(
                "container {} is to be in a VM, where CRIU on this host can't restore processes; a \
                 checkpoint is of a process of this host (annotation io.runhcs.isolation: process)",
                args.id
            );
        }
        if record.terminal && args.console_socket.is_none() {
            bail!("the process has a terminal: give --console-socket to send it to");
        }
        if args.preserve_fds > 0 {
            bail!(
                "--preserve-fds can't be used with VM isolation: descriptors don't reach the guest"
            );
        }
        notify_socket::warn_of_vm();
        self.pidfd_socket = connect_pidfd_socket(args)?;
        self.network = flow.step("network", || hold_network(&bundle.spec, record))?;
        if let Some(network) = &self.network {
            self.devices_joined =
                move_net_devices(flow, &bundle.spec, record, network)? && !record.is_vm_host();
            run_early_hooks(flow, &bundle.spec, record, network.pid())?;
        }
        Ok(())
    }

    fn launch_vm(&mut self, flow: &mut Transaction) -> Result<Vm> {
        self.disks = Some(self.open_disks(flow)?);
        let Claimed { globals, args, bundle, record, entry } = &self.claimed;
        let network = self.network.as_ref().map(PodNetwork::path);
        let options = flow.step("vm-options", || {
            let hardware = bundle.hardware.as_ref();
            let options = VmOptions::from_spec(&bundle.spec, hardware, &globals.config.vm)?;
            for name in VmOptions::ignored_annotations(&bundle.spec)? {
                tracing::warn!(annotation = name, "it has no effect on this system");
            }
            if options.console == Console::Off && args.vm_console.is_some() {
                bail!("--vm-console was given, but the VM is to have no console");
            }
            for (what, path) in [("kernel", &options.kernel), ("initramfs", &options.initramfs)] {
                if !path.exists() {
                    bail!(
                        "there is no guest {what} at {}; make the guest image with \
                         `runhcs-guest-image build`, or set `{what}` in the configuration",
                        path.display()
                    );
                }
            }
            Ok(options)
        })?;
        let group = flow.step("vm-group-plan", || {
            let in_pod = record.sandbox_id.is_some();
            vm_group::plan(&args.id, &bundle.spec, &options, in_pod, globals.cgroup_driver())
        })?;
        let owner = Rc::clone(entry);
        // It is there until the VM's own processes are.
        let placeholder = self.network.as_ref().context("nothing is in the VM's network")?.pid();
        flow.step_with_undo(
            "vm-group",
            move || vm_group::remove(&owner),
            || vm_group::create(entry, &group, placeholder),
        )?;
        let directory = entry.dir().join("vm");
        let program = globals.config.vm_shim()?;
        let launch = Launch {
            host_id: args.id.clone(),
            dir: directory.clone(),
            options,
            network,
            cgroups: group.directories(),
            console: args.vm_console.clone(),
            log_level: if globals.args.debug { "debug" } else { "info" }.to_owned(),
            log_json: globals.args.log_format == crate::cli::LogFormat::Json,
        };
        let path = args.vm_log.clone().unwrap_or_else(|| entry.dir().join("vm.log"));
        let undo = Vm::at(&directory);
        flow.step_with_undo(
            "vm",
            move || Ok(undo.shutdown()?),
            || {
                rustix::fs::mkdir(&directory, rustix::fs::Mode::from_raw_mode(0o700))
                    .with_context(|| format!("make {}", directory.display()))?;
                let log = std::fs::OpenOptions::new().create(true).append(true).open(&path);
                let log = log.with_context(|| format!("open the VM's log {}", path.display()))?;
                let mut progress = Progress::new("starting the virtual machine");
                Ok(Vm::launch(&program, &launch, log.into(), &mut || progress.tick())?)
            },
        )
    }

    fn join_vm(&mut self, place: &VmPlace) -> Result<Vm> {
        let host = self.claimed.globals.store.entry(&place.host_id)?;
        let current = host.record()?.unique_id;
        if current != place.host_unique_id {
            bail!("the VM of {} was replaced by another while joining it", place.host_id);
        }
        Ok(vm_of(&host))
    }

    fn create_in_vm(&mut self, flow: &mut Transaction, vm: Vm) -> Result<Main> {
        let disks = match self.disks.take() {
            Some(disks) => disks,
            None => self.open_disks(flow)?,
        };
        let Claimed { globals, args, bundle, record, entry } = &self.claimed;
        let network = match (&self.network, &record.netns) {
            (Some(network), _) => Some(network.path()),
            // That of a process that is gone; the VM still has it.
            (None, Some(path)) if !path.exists() => vm.info()?.network,
            (None, path) => path.clone(),
        };
        let spec = flow.step("guest-spec", || {
            let pod = PodView::collect(&globals.store, record)?;
            GuestSpec::translate(&bundle.spec, record, &pod)
        })?;
        if self.devices_joined {
            flow.step("sync", || Ok(vm.sync_network()?))?;
        }
        let undo = VmContainer { vm: vm.clone(), id: args.id.clone() };
        let guest_pid = flow.step_with_undo(
            "container",
            move || Ok(undo.delete()?),
            || {
                // The guest can't map ids of files that it has from this host, so this host does.
                let map = |index, tree: BorrowedFd<'_>| map_mount(&bundle.spec, index, tree);
                Ok(vm.create_container(&args.id, &spec.0, &disks, &map)?)
            },
        )?;
        // The VM has them; ours would keep them in use.
        drop(disks);
        let target = shim::Target {
            vm: entry_vm_directory(globals, record, entry)?,
            host: record.vm.as_ref().map_or(&record.id, |vm| &vm.host_id).clone(),
            id: args.id.clone(),
            exec: None,
            console_socket: args.console_socket.clone(),
            network,
        };
        let pid = flow.acquire(
            "shim",
            || shim::launch(globals, &target, args.shim_log.as_ref()),
            |pid| {
                let pid = *pid;
                Box::new(move || shim::kill(pid))
            },
        )?;
        let process = ProcessHandle::of(pid)?.context("the container shim ended at once")?;
        let main = Main { process, guest_pid: Some(guest_pid) };
        flow.step("main", || Ok(entry.put(value::MAIN, &main)?))?;
        send_pidfd(flow, self.pidfd_socket.take(), &main)?;
        Ok(main)
    }
}

fn connect_pidfd_socket(args: &CreateArgs) -> Result<Option<PidfdSocket>> {
    args.pidfd_socket.as_deref().map(PidfdSocket::connect).transpose()
}

fn send_pidfd(flow: &mut Transaction, socket: Option<PidfdSocket>, main: &Main) -> Result<()> {
    let Some(socket) = socket else { return Ok(()) };
    flow.step("pidfd-socket", || socket.send(main.process.pid))
}

fn main_process(container: &Container) -> Result<Main> {
    let Init { pid, start_time } = container.init.context("the container has no init process")?;
    Ok(Main { process: ProcessHandle { pid, start_time }, guest_pid: None })
}

fn hold_network(spec: &Spec, record: &Record) -> Result<Option<PodNetwork>> {
    hooks::check(spec, record)?;
    let needed =
        record.is_vm_host() || hooks::has_early(spec) || !NetDevices::new(spec)?.is_empty();
    needed.then(|| PodNetwork::hold(record.netns.as_deref())).transpose()
}

/// Moves the host's network devices that the container is to have into the pod's network, from which
/// the VM takes them. Returns whether there are any.
fn move_net_devices(
    flow: &mut Transaction,
    spec: &Spec,
    record: &Record,
    network: &PodNetwork,
) -> Result<bool> {
    let devices = NetDevices::new(spec)?;
    if devices.is_empty() {
        return Ok(false);
    }
    if !record.is_vm_host() && record.netns.is_none() {
        bail!(
            "linux.netDevices: a further container of a VM gets no devices of its own; name the \
             pod's network namespace in linux.namespaces"
        );
    }
    let path = network.path();
    // Once the container is there they stay, whatever becomes of this process.
    let moved = Rc::new(Cell::new(None));
    let undo = Rc::clone(&moved);
    flow.step_with_undo(
        "net-devices",
        move || {
            drop(undo.take().map(ManuallyDrop::into_inner));
            Ok(())
        },
        || {
            let namespace = std::fs::File::open(&path);
            let namespace = namespace.with_context(|| format!("open {}", path.display()))?;
            moved.set(Some(ManuallyDrop::new(devices.move_to(namespace.into())?)));
            Ok(())
        },
    )?;
    Ok(true)
}

/// Runs the hooks before the VM is there, so that it finds the network as they leave it.
fn run_early_hooks(flow: &mut Transaction, spec: &Spec, record: &Record, pid: u32) -> Result<()> {
    let undo = (spec.clone(), record.clone());
    flow.step_with_undo(
        "hooks",
        // What the first hooks made, the last ones unmake.
        move || {
            hooks::run_poststop(&undo.0, &undo.1);
            Ok(())
        },
        || hooks::run_early(spec, record, pid),
    )
}

fn entry_vm_directory(globals: &Globals, record: &Record, entry: &Locked) -> Result<PathBuf> {
    match &record.vm {
        Some(vm) if vm.host_id != record.id => {
            Ok(globals.store.entry(&vm.host_id)?.dir().join("vm"))
        }
        _ => Ok(entry.dir().join("vm")),
    }
}
