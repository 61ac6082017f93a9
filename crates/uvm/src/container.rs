//! A container in a VM as a compute system.

use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use runhcs_compute::{
    ComputeSystem, ContainerId, Error, OomNotice, Result, Scope, Signal, Stats, Status,
};
use runhcs_protocol::guest::{Failure, ProcessKey, Reply, Request, UpdateContainer, WaitOom};

use runhcs_protocol::processes::{DescribeProcesses, ProcessTable};

use crate::Vm;
use crate::connection::Failed;

/// The most that a pid can be (`PID_MAX_LIMIT`, proc_sys_kernel(5)).
const MAX_PID: u32 = 4_194_304;
/// The most processes that are described: as many as a kernel runs by default (`pid_max`), so that
/// a guest can't have us collect for ever.
const MAX_DESCRIBED: usize = 32_768;

/// A container in a VM. Its `status`, `start`, `signal`, … are requests to the guest's agent.
#[derive(Clone, Debug)]
pub struct VmContainer {
    /// The VM it is in.
    pub vm: Vm,
    /// Its id.
    pub id: ContainerId,
}

impl VmContainer {
    /// Asks for something that changes the container, and is done when answered.
    fn change(&self, operation: &'static str, request: Request) -> Result<()> {
        let text = format!("{operation} container {}", self.id);
        self.vm.done(&text, &self.id, request).map_err(|error| self.refine(operation, error))
    }

    /// Asks for something that is answered with more than that it is done. `expected` takes the
    /// answer that makes sense.
    fn ask<T>(
        &self,
        operation: &'static str,
        request: Request,
        expected: impl FnOnce(Reply) -> std::result::Result<T, Reply>,
    ) -> Result<T> {
        let text = format!("{operation} container {}", self.id);
        let reply = self.vm.ask_guest(&text, Some(&self.id), request);
        expected(reply.map_err(|error| self.refine(operation, error))?).map_err(|reply| {
            Error::failed(format!("cannot {text}"), format!("the answer makes no sense: {reply:?}"))
        })
    }

    /// Sets limits in the guest, whose VM grows if it must and may.
    ///
    /// # Errors
    /// Names the field that is wrong, or that the guest's kernel refuses; says how large the VM is
    /// if it can't grow so far.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        let update = UpdateContainer { id: self.id.clone(), resources: resources.clone() };
        self.change("update", Request::UpdateContainer(Box::new(update)))
    }

    /// What the container uses in the guest.
    pub fn stats(&self) -> Result<Stats> {
        self.ask("measure", Request::ContainerStats(self.id.clone()), |reply| match reply {
            Reply::Stats(stats) => Ok(*stats),
            reply => Err(reply),
        })
    }

    /// What the guest's `/proc` says of the container's processes and of the guest.
    pub fn process_table(&self) -> Result<ProcessTable> {
        let mut table = ProcessTable::default();
        loop {
            let after = table.processes.last().map_or(0, |process| process.pid);
            let describe = DescribeProcesses { container: self.id.clone(), after };
            let request = Request::DescribeProcesses(describe);
            let part = self.ask("describe the processes of", request, |reply| match reply {
                // The guest has to come to an end.
                Reply::ProcessTable(part) if is_part(&part, after) => Ok(*part),
                reply => Err(reply),
            })?;
            table.system = part.system;
            table.processes.extend(part.processes);
            if table.processes.len() > MAX_DESCRIBED {
                return Err(Error::failed(
                    format!("cannot describe the processes of container {}", self.id),
                    format!("there are more than {MAX_DESCRIBED}"),
                ));
            }
            if !part.more {
                return Ok(table);
            }
        }
    }

    /// Waits until the count of out-of-memory kills is another than `known`, the container has
    /// ended, or `limit` has passed; not at all if nothing is known yet.
    pub fn wait_oom(&self, known: Option<u64>, limit: Duration) -> Result<OomNotice> {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let request = Request::WaitOom(WaitOom { id: self.id.clone(), known, limit });
        match self.ask("watch", request, |reply| match reply {
            Reply::Oom(notice) => Ok(notice),
            reply => Err(reply),
        }) {
            // Deleted, or gone with its VM, while nobody looked.
            Err(Error::NotFound(_) | Error::InvalidStatus { status: Status::Stopped, .. }) => {
                Ok(OomNotice { total: known.unwrap_or_default(), ended: true })
            }
            other => other,
        }
    }

    /// Sorts an error by what the caller can do about it.
    fn refine(&self, operation: &'static str, error: Error) -> Error {
        let invalid = |status| Error::InvalidStatus { operation, id: self.id.clone(), status };
        if let Error::Failed { source, .. } = &error {
            if let Some(Failure::InvalidStatus(status)) = source.downcast_ref() {
                return invalid(*status);
            }
            // With its VM everything in it has stopped.
            if is_vm_gone(&error) {
                return invalid(Status::Stopped);
            }
        }
        error
    }
}

/// Whether an answer has pids that ascend from `after` on, and at least one if there are to be more.
fn is_part(part: &ProcessTable, after: u32) -> bool {
    let pids = part.processes.iter().map(|process| process.pid);
    std::iter::once(after).chain(pids).is_sorted_by(|before, next| before < next)
        && !(part.more && part.processes.is_empty())
        && part.processes.iter().all(|process| process.pid <= MAX_PID)
}

fn is_vm_gone(error: &Error) -> bool {
    let Error::Failed { source, .. } = error else { return false };
    matches!(source.downcast_ref(), Some(Failed::NoShim | Failed::VmEnded(_)))
}

impl ComputeSystem for VmContainer {
    fn status(&self) -> Result<Status> {
        let operation = format!("ask for the status of container {}", self.id);
        let request = Request::ContainerStatus(self.id.clone());
        match self.vm.ask_guest(&operation, Some(&self.id), request) {
            Ok(Reply::Status(status)) => Ok(status),
            Ok(reply) => Err(Error::failed(
                format!("cannot {operation}"),
                format!("the answer makes no sense: {reply:?}"),
            )),
            Err(error) if is_vm_gone(&error) => Ok(Status::Stopped),
            Err(error) => Err(error),
        }
    }

    fn start(&self) -> Result<()> {
        self.change("start", Request::StartContainer(self.id.clone()))
    }

    fn signal(&self, signal: Signal, scope: Scope) -> Result<()> {
        let process = ProcessKey { container: self.id.clone(), exec: None };
        self.change("kill", Request::SignalProcess { process, signal, scope })
    }

    fn pause(&self) -> Result<()> {
        self.change("pause", Request::PauseContainer(self.id.clone()))
    }

    fn resume(&self) -> Result<()> {
        self.change("resume", Request::ResumeContainer(self.id.clone()))
    }

    fn processes(&self) -> Result<Vec<u32>> {
        let operation = format!("list the processes of container {}", self.id);
        let request = Request::ListProcesses(self.id.clone());
        match self.vm.ask_guest(&operation, Some(&self.id), request) {
            Ok(Reply::Processes(pids)) => Ok(pids),
            Ok(reply) => Err(Error::failed(
                format!("cannot {operation}"),
                format!("the answer makes no sense: {reply:?}"),
            )),
            Err(error) => Err(self.refine("list the processes of", error)),
        }
    }

    fn delete(&self) -> Result<()> {
        self.vm.delete_container(&self.id)
    }
}
