//! Freeing all that a container holds.

use anyhow::{Context, Result};
use runhcs_compute::ContainerId;
use runhcs_state::{Locked, ProcessHandle, Store};

use crate::existing::{Existing, Main, config, value};
use crate::sys::service::vm_of;
use crate::sys::{hooks, process, vm_group};

/// Frees all that it holds; its entry is left.
pub fn free(store: &Store, entry: &Locked, existing: &Existing, force: bool) -> Result<()> {
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

/// Frees what can be found of a container whose state is damaged.
pub fn free_damaged(entry: &Locked) -> Result<()> {
    if let Ok(Some(resources)) = entry.get(value::RESOURCES) {
        use runhcs_compute::ComputeSystem;
        let main: Option<Main> = entry.get(value::MAIN).ok().flatten();
        let init = main.map(|main| process::init(main.process));
        runhcs_container::Container { resources, init }.delete()?;
    }
    vm_of(entry).shutdown()?;
    vm_group::remove(entry)
}
