//! What the creation flow asks of a compute service, the same on every operating system.

use std::rc::Rc;

use anyhow::Result;
use runhcs_spec::Bundle;
use runhcs_state::{Locked, Record, VmPlace};

use super::transaction::Transaction;
use crate::cli::CreateArgs;
use crate::existing::Main;
use crate::globals::Globals;

/// What is known once the id is claimed.
pub struct Claimed<'a> {
    pub globals: &'a Globals,
    pub args: &'a CreateArgs,
    pub bundle: &'a Bundle,
    pub record: &'a Record,
    /// The container's entry of the store, which the flow removes if a step fails.
    pub entry: Rc<Locked>,
}

/// The steps that a system's compute service takes. Each adds its steps to the flow, with what
/// undoes them, and writes what `delete` needs before the resource exists.
pub trait Service {
    /// A utility VM that a container can be created in.
    type Vm;

    /// Creates the container on this host.
    fn create(&mut self, flow: &mut Transaction) -> Result<Main>;

    /// Gets the network ready that a container in a VM has on this host.
    fn prepare_network(&mut self, flow: &mut Transaction) -> Result<()>;

    /// Starts the VM shim, which brings up the container's own VM, and waits for its verdict.
    fn launch_vm(&mut self, flow: &mut Transaction) -> Result<Self::Vm>;

    /// Finds the VM of another container.
    fn join_vm(&mut self, place: &VmPlace) -> Result<Self::Vm>;

    /// Creates the container in a VM, and the container shim that stands for it on this host.
    fn create_in_vm(&mut self, flow: &mut Transaction, vm: Self::Vm) -> Result<Main>;
}
