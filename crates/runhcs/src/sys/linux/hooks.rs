//! The hooks of a container in a VM. Those that concern the host run here; `startContainer`, whose
//! programs are the container's own, is left to the engine in the guest; `createContainer` would
//! need this host's programs in the guest's namespaces, and is refused. Those of a process-isolated
//! container are all run by the engine.

use anyhow::{Result, bail};
use oci_spec::runtime::Spec;
use runhcs_compute::Status;
use runhcs_container::{HookPoint, HookSubject};
use runhcs_state::Record;

/// The points before the container exists.
const EARLY: [HookPoint; 2] = [HookPoint::Prestart, HookPoint::CreateRuntime];

/// Whether hooks run before the container exists.
pub fn has_early(spec: &Spec) -> bool {
    EARLY.iter().any(|point| !point.hooks(spec).is_empty())
}

/// Refuses what can't be had.
pub fn check(spec: &Spec, record: &Record) -> Result<()> {
    if !HookPoint::CreateContainer.hooks(spec).is_empty() {
        bail!(
            "hooks.createContainer: such hooks are this host's programs and run in the container's \
             namespaces, which are in a VM; use createRuntime or startContainer, or isolate the \
             container as a process"
        );
    }
    if has_early(spec) && !record.is_vm_host() && record.netns.is_none() {
        bail!(
            "hooks: prestart and createRuntime hooks can't reach the new network namespace of a \
             container that joins a VM; have it join its pod's"
        );
    }
    Ok(())
}

/// Runs the hooks before the container exists, on behalf of a process in the pod's network.
pub fn run_early(spec: &Spec, record: &Record, pid: u32) -> Result<()> {
    let subject = subject(spec, record);
    for point in EARLY {
        subject.run(point, point.hooks(spec), Status::Creating, pid)?;
    }
    Ok(())
}

/// Runs the hooks after the program was executed. `pid` is the container shim's.
pub fn run_poststart(spec: &Spec, record: &Record, pid: u32) -> Result<()> {
    let point = HookPoint::Poststart;
    Ok(subject(spec, record).run(point, point.hooks(spec), Status::Running, pid)?)
}

/// Runs the hooks after the container is gone.
pub fn run_poststop(spec: &Spec, record: &Record) {
    subject(spec, record).run_poststop(HookPoint::Poststop.hooks(spec));
}

/// The hooks that the guest's engine is to run.
pub fn keep_for_guest(spec: &mut Spec) {
    let mut kept = oci_spec::runtime::Hooks::default();
    kept.set_start_container(Some(HookPoint::StartContainer.hooks(spec).to_vec()));
    spec.set_hooks(Some(kept));
}

fn subject(spec: &Spec, record: &Record) -> HookSubject {
    HookSubject::new(&record.id, spec, &record.bundle)
}
