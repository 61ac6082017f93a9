//! The creation flow: one function, read from top to bottom. Each step is undone if a later one
//! fails, and state is written before the resource that it describes exists. What the steps do on
//! an operating system is its [`Service`]'s.

use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result};
use runhcs_compute::ContainerId;
use runhcs_spec::Bundle;
use runhcs_state::{NamespaceConfig, RECORD_VERSION, Record};

use super::place::{Place, Question};
use super::service::{Claimed, Service};
use super::transaction::Transaction;
use crate::cli::CreateArgs;
use crate::existing::{Existing, Main, value};
use crate::globals::Globals;
use crate::{logging, pid_file, sys};

/// A container that was created.
#[derive(Debug)]
pub struct Created {
    /// Its main process on this host: a child of this process.
    pub main: Main,
}

/// Creates a container from the bundle that `load` gives.
///
/// # Errors
/// The first step that failed; everything before it is undone.
pub fn create(
    globals: &Globals,
    args: &CreateArgs,
    load: impl FnOnce() -> Result<Bundle>,
) -> Result<Created> {
    let store = &globals.store;
    let id = &args.id;
    let mut flow = Transaction::new(id);

    let bundle = flow.step("load", load)?;
    let unique_id = sys::new_unique_id()?;

    let place = flow.step("place", || {
        let wish = sys::isolation_wish(globals, args, &bundle.spec)?;
        let question = Question {
            id,
            unique_id: &unique_id,
            spec: &bundle.spec,
            host: args.host.as_ref(),
            flag: wish.flag,
            program_name: &wish.program_name,
            configured: wish.configured,
        };
        Place::decide(&question, |id| find_record(globals, id))
    })?;
    if let Some(vm) = &place.vm {
        sys::check_may_have_vm()?;
        logging::about_vm(&vm.host_id);
    }
    let network = sys::network_namespace(globals, &bundle.spec)?;
    let record = record(globals, id, &unique_id, &bundle, &place, network);

    let claim = || Ok(Rc::new(store.claim(&record)?));
    let entry = flow.acquire("claim", claim, |entry| {
        let entry = Rc::clone(entry);
        Box::new(move || Ok(entry.remove()?))
    })?;
    entry.put(value::CONFIG, &bundle.spec)?;

    let (bundle, record) = (&bundle, &record);
    let mut service = sys::CreationService::new(Claimed { globals, args, bundle, record, entry });
    let main = match &place.vm {
        None => service.create(&mut flow)?,
        Some(vm) => {
            if let (true, Some(netns)) = (record.is_vm_host(), &record.netns) {
                let config =
                    NamespaceConfig::new(netns.to_string_lossy(), id.clone(), &vm.host_unique_id)?;
                let (namespaces, name) = (store.namespaces(), netns.to_string_lossy().into_owned());
                let host = vm.host_unique_id.clone();
                flow.step_with_undo(
                    "namespace",
                    move || Ok(namespaces.remove(&name, &host)?),
                    || Ok(store.namespaces().store(&config)?),
                )?;
            }
            service.prepare_network(&mut flow)?;
            let vm = if record.is_vm_host() {
                service.launch_vm(&mut flow)?
            } else {
                service.join_vm(vm)?
            };
            service.create_in_vm(&mut flow, vm)?
        }
    };

    if let Some(path) = &args.pid_file {
        let written = path.clone();
        flow.step_with_undo(
            "pid-file",
            move || remove_file(&written),
            || pid_file::write(path, main.process.pid),
        )?;
    }
    flow.commit();
    Ok(Created { main })
}

fn record(
    globals: &Globals,
    id: &ContainerId,
    unique_id: &str,
    bundle: &Bundle,
    place: &Place,
    network: Option<PathBuf>,
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
        netns: network,
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

fn remove_file(path: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
