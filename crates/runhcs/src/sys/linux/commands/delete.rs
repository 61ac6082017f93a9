//! `delete`: frees all that a container holds.

use anyhow::{Context, Result, bail};
use runhcs_compute::{ContainerId, Status};
use runhcs_state::{Locked, ProcessHandle, Record, Store};

use crate::cli::DeleteArgs;
use crate::existing::{Existing, Main, config, value};
use crate::globals::Globals;
use crate::sys::service::vm_of;
use crate::sys::{hooks, process, vm_group};

/// Deletes a container. With `--force` also one that runs, one whose creation was cut off, one
/// whose state is damaged, and none at all. With the owner of a VM the VM goes, and others in it
/// have stopped then.
pub fn run(globals: &Globals, args: &DeleteArgs) -> Result<u8> {
    let store = &globals.store;
    let entry = match store.entry(&args.id).and_then(runhcs_state::Entry::lock) {
        Ok(entry) => entry,
        Err(runhcs_state::Error::NotFound(_)) if args.force => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let existing = match Existing::open(store, &entry) {
        Ok(existing) => existing,
        Err(error) if args.force => return delete_damaged(&entry, &error),
        Err(error) => return Err(error),
    };
    if !args.force {
        match existing.status()? {
            Status::Stopped | Status::Created => {}
            Status::Creating => bail!(
                "container {} is still being created, or its creation was cut off; \
                 `delete --force {0}` clears it",
                args.id
            ),
            status => bail!("cannot delete container {} that is not stopped: {status}", args.id),
        }
    }
    if existing.record.is_vm_host() && !args.force {
        refuse_guests(store, &existing.record)?;
    }
    free(store, &entry, &existing, args.force)?;
    Ok(0)
}

/// Containers that run in this one's VM would be stopped with it.
fn refuse_guests(store: &Store, host: &Record) -> Result<()> {
    for (_, listed) in store.list()? {
        let Ok((entry, record)) = listed else { continue };
        if record.id == host.id || record.vm != host.vm {
            continue;
        }
        if Existing::open(store, &entry)?.status()? != Status::Stopped {
            bail!(
                "container {} is in the VM of {}; delete it first, or stop it with the VM by --force",
                record.id,
                host.id
            );
        }
    }
    Ok(())
}

fn free(store: &Store, entry: &Locked, existing: &Existing, force: bool) -> Result<()> {
    let record = &existing.record;
    if let Some(container) = existing.container() {
        use runhcs_compute::ComputeSystem;
        container.delete()?;
    }
    if let Some(container) = existing.vm_container() {
        use runhcs_compute::ComputeSystem;
        // A host's VM goes as a whole.
        if !record.is_vm_host() && container.vm.is_alive()? {
            match container.delete() {
                // A guest that doesn't answer must not keep anybody from clearing up.
                Err(error) if force => tracing::warn!(
                    "{:#}; what is left of it goes with its virtual machine",
                    anyhow::Error::from(error)
                ),
                deleted => deleted?,
            }
        }
    }
    if record.is_vm_host() {
        vm_of(entry).shutdown()?;
        vm_group::remove(entry)?;
    }
    if record.vm.is_some()
        && let Some(main) = existing.main
    {
        end(&record.id, main.process)?;
    }
    if let (true, Some(netns)) = (record.is_vm_host(), &record.netns) {
        store.namespaces().remove(&netns.to_string_lossy(), &record.unique_id)?;
    }
    if record.vm.is_some() {
        match config(entry) {
            Ok(spec) => hooks::run_poststop(&spec, record),
            Err(error) => tracing::warn!("{error:#}; its poststop hooks are not run"),
        }
    }
    entry.remove()?;
    Ok(())
}

/// Ends a container shim and waits until it is gone.
fn end(id: &ContainerId, shim: ProcessHandle) -> Result<()> {
    let what = || format!("end the container shim of {id}");
    let Some(pidfd) = process::open(shim).with_context(what)? else { return Ok(()) };
    match rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error).with_context(what),
    }
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&limit)).with_context(what)?;
    Ok(())
}

/// Frees what can be found without the damaged part.
fn delete_damaged(entry: &Locked, error: &anyhow::Error) -> Result<u8> {
    tracing::warn!("{error:#}; deleting what can be found");
    if let Ok(Some(resources)) = entry.get(value::RESOURCES) {
        use runhcs_compute::ComputeSystem;
        let main: Option<Main> = entry.get(value::MAIN).ok().flatten();
        let init = main.map(|main| process::init(main.process));
        runhcs_container::Container { resources, init }.delete()?;
    }
    vm_of(entry).shutdown()?;
    vm_group::remove(entry)?;
    entry.remove()?;
    Ok(0)
}
