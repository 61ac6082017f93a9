//! A container in a VM as a compute system.

use runhcs_compute::{ComputeSystem, ContainerId, Error, Result, Scope, Signal, Status};
use runhcs_protocol::guest::{Failure, ProcessKey, Reply, Request};

use crate::Vm;
use crate::connection::Failed;

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

fn is_vm_gone(error: &Error) -> bool {
    let Error::Failed { source, .. } = error else { return false };
    matches!(source.downcast_ref(), Some(Failed::NoShim | Failed::VmLost(_)))
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
