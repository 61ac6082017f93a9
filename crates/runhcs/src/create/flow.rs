//! The creation flow: one function, read from top to bottom. Each step is undone if a later one
//! fails, and state is written before the resource that it describes exists.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;
use runhcs_compute::{ComputeSystem, ContainerId};
use runhcs_container::{Container, CreateOptions, Init, Plan, map_mount};
use runhcs_spec::{Bundle, VmOptions};
use runhcs_state::{Locked, NamespaceConfig, ProcessHandle, RECORD_VERSION, Record};
use runhcs_uvm::{Launch, Vm, VmContainer};

use super::place::{Place, Question};
use super::transaction::Transaction;
use crate::cli::CreateArgs;
use crate::existing::{Existing, Main, value, vm_of};
use crate::globals::{Globals, is_privileged};
use crate::guest_spec::{GuestSpec, PodView};
use crate::pod_network::PodNetwork;
use crate::progress::Progress;
use crate::{hooks, logging, pid_file, shim, terminal};

/// A container that was created.
#[derive(Debug)]
pub struct Created {
    /// Its main process on this host: a child of this process.
    pub main: Main,
}

/// Creates a container.
///
/// # Errors
/// The first step that failed; everything before it is undone.
pub fn create(globals: &Globals, args: &CreateArgs) -> Result<Created> {
    let store = &globals.store;
    let id = &args.id;
    let mut flow = Transaction::new(id);

    let bundle = flow.step("load", || Ok(Bundle::load(&args.bundle)?))?;
    let unique_id = new_unique_id()?;

    let place = flow.step("place", || {
        let question = Question {
            id,
            unique_id: &unique_id,
            spec: &bundle.spec,
            host: args.host.as_ref(),
            flag: args.isolation,
            program_name: &std::env::args().next().unwrap_or_default(),
            configured: globals.config.isolation,
        };
        Place::decide(&question, |id| find_record(globals, id))
    })?;
    if let Some(vm) = &place.vm {
        if !is_privileged() {
            bail!("VM isolation needs root: ordinary users can have process isolation only");
        }
        logging::about_vm(&vm.host_id);
    }
    let record = record(globals, id, &unique_id, &bundle, &place);

    let claim = || Ok(Rc::new(store.claim(&record)?));
    let entry = flow.acquire("claim", claim, |entry| {
        let entry = Rc::clone(entry);
        Box::new(move || Ok(entry.remove()?))
    })?;
    entry.put(value::CONFIG, &bundle.spec)?;

    let created = match &place.vm {
        None => create_process(&mut flow, globals, args, &entry, &bundle)?,
        Some(vm) => {
            if let (true, Some(netns)) = (record.is_vm_host(), &record.netns) {
                let config =
                    NamespaceConfig::new(netns.to_string_lossy(), id.clone(), &vm.host_unique_id)?;
                let (namespaces, name) = (store.namespaces(), netns.to_string_lossy().into_owned());
                flow.step_with_undo(
                    "namespace",
                    move || Ok(namespaces.remove(&name)?),
                    || Ok(store.namespaces().store(&config)?),
                )?;
            }
            let network = flow.step("network", || hold_network(&bundle.spec, &record))?;
            if let Some(network) = &network {
                run_early_hooks(&mut flow, &bundle.spec, &record, network.pid())?;
            }
            let vm = if record.is_vm_host() {
                let network = network.as_ref().map(PodNetwork::path);
                launch_vm(&mut flow, globals, args, &entry, &bundle, network)?
            } else {
                let host = store.entry(&vm.host_id)?;
                let current = host.record()?.unique_id;
                if current != vm.host_unique_id {
                    bail!("the VM of {} was replaced by another while joining it", vm.host_id);
                }
                vm_of(&host)
            };
            let network = network.as_ref().map(PodNetwork::path).or(record.netns.clone());
            let joined = Joined { vm, network };
            create_in_vm(&mut flow, globals, args, &entry, &bundle, &record, joined)?
        }
    };

    if let Some(path) = &args.pid_file {
        let written = path.clone();
        flow.step_with_undo(
            "pid-file",
            move || remove_file(&written),
            || pid_file::write(path, created.main.process.pid),
        )?;
    }
    flow.commit();
    Ok(created)
}

/// Creates the container on this host.
fn create_process(
    flow: &mut Transaction,
    globals: &Globals,
    args: &CreateArgs,
    entry: &Rc<Locked>,
    bundle: &Bundle,
) -> Result<Created> {
    let console_socket = args.console_socket.as_deref().map(terminal::connect).transpose()?;
    let plan = flow.step("plan", || {
        Ok(Plan::new(CreateOptions {
            id: &args.id,
            spec: &bundle.spec,
            bundle: &bundle.path,
            runtime_dir: entry.dir(),
            stdio: None,
            console_socket,
            preserve_fds: args.preserve_fds,
            no_pivot: args.no_pivot,
            no_new_keyring: args.no_new_keyring,
            rootless: globals.rootless(),
        })?)
    })?;
    let resources = plan.resources().clone();
    flow.step("resources", || Ok(entry.put(value::RESOURCES, &resources)?))?;
    let create = || Ok(Container { resources: resources.clone(), init: Some(plan.create()?) });
    let container = flow.acquire("container", create, |container| {
        let container = container.clone();
        Box::new(move || Ok(container.delete()?))
    })?;
    let main = main_process(&container)?;
    flow.step("main", || Ok(entry.put(value::MAIN, &main)?))?;
    Ok(Created { main })
}

fn main_process(container: &Container) -> Result<Main> {
    let Init { pid, start_time } = container.init.context("the container has no init process")?;
    Ok(Main { process: ProcessHandle { pid, start_time }, guest_pid: None })
}

/// A process in the pod's network, where the VM or hooks need one. It may end with the creation:
/// shims are in the network by then.
fn hold_network(spec: &Spec, record: &Record) -> Result<Option<PodNetwork>> {
    hooks::check(spec, record)?;
    let needed = record.is_vm_host() || hooks::has_early(spec);
    needed.then(|| PodNetwork::hold(record.netns.as_deref())).transpose()
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

/// Starts the VM shim, which brings up the VM, and waits for its verdict.
fn launch_vm(
    flow: &mut Transaction,
    globals: &Globals,
    args: &CreateArgs,
    entry: &Rc<Locked>,
    bundle: &Bundle,
    network: Option<PathBuf>,
) -> Result<Vm> {
    let options = flow.step("vm-options", || {
        let options = VmOptions::from_spec(&bundle.spec, &globals.config.vm)?;
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
    let directory = entry.dir().join("vm");
    let program = globals.config.vm_shim()?;
    let launch = Launch {
        host_id: args.id.clone(),
        dir: directory.clone(),
        options,
        network,
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

/// A VM, and where its network is found on this host, unless the container has one of its own.
struct Joined {
    vm: Vm,
    network: Option<PathBuf>,
}

/// Creates the container in a VM, and the container shim that stands for it on this host.
fn create_in_vm(
    flow: &mut Transaction,
    globals: &Globals,
    args: &CreateArgs,
    entry: &Rc<Locked>,
    bundle: &Bundle,
    record: &Record,
    joined: Joined,
) -> Result<Created> {
    let Joined { vm, network } = joined;
    let spec = flow.step("guest-spec", || {
        let pod = PodView::collect(&globals.store, record)?;
        GuestSpec::translate(&bundle.spec, record, &pod)
    })?;
    if record.terminal && args.console_socket.is_none() {
        bail!("the process has a terminal: give --console-socket to send it to");
    }
    if args.preserve_fds > 0 {
        bail!("--preserve-fds can't be used with VM isolation: descriptors don't reach the guest");
    }
    let undo = VmContainer { vm: vm.clone(), id: args.id.clone() };
    let guest_pid = flow.step_with_undo(
        "container",
        move || Ok(undo.delete()?),
        || {
            // The guest can't map ids of files that it has from this host, so this host does.
            let map = |index, tree: BorrowedFd<'_>| map_mount(&bundle.spec, index, tree);
            Ok(vm.create_container(&args.id, &spec.0, &map)?)
        },
    )?;
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
    Ok(Created { main })
}

fn entry_vm_directory(globals: &Globals, record: &Record, entry: &Locked) -> Result<PathBuf> {
    match &record.vm {
        Some(vm) if vm.host_id != record.id => {
            Ok(globals.store.entry(&vm.host_id)?.dir().join("vm"))
        }
        _ => Ok(entry.dir().join("vm")),
    }
}

fn record(
    globals: &Globals,
    id: &ContainerId,
    unique_id: &str,
    bundle: &Bundle,
    place: &Place,
) -> Record {
    let spec = &bundle.spec;
    let annotations = spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
    let process = spec.process().as_ref();
    Record {
        version: RECORD_VERSION,
        id: id.clone(),
        unique_id: unique_id.to_owned(),
        owner: globals.owner.clone(),
        oci_version: spec.version().clone(),
        bundle: bundle.path.clone(),
        rootfs: bundle.rootfs().to_owned(),
        created: logging::now(),
        annotations: annotations.collect(),
        sandbox_id: place.sandbox_id.clone(),
        vm: place.vm.clone(),
        netns: crate::guest_spec::network_namespace(spec),
        terminal: process.is_some_and(|process| process.terminal() == Some(true)),
    }
}

fn find_record(globals: &Globals, id: &ContainerId) -> Result<Option<Record>> {
    match globals.store.entry(id) {
        Ok(entry) => Ok(Some(Existing::open(&globals.store, &entry)?.record)),
        Err(runhcs_state::Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A UUID of version 4, from the kernel (random(4), `/proc/sys/kernel/random/uuid`).
fn new_unique_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    Ok(text.trim().to_owned())
}

fn remove_file(path: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
