//! What the annotations of the CRI runtimes say about a container's place in a pod.

use std::collections::HashMap;

use runhcs_compute::ContainerId;

use crate::Result;

/// A container's place in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxRole {
    /// It belongs to no pod.
    Plain,
    /// It stands for a pod and names this sandbox id (which must be its own).
    Sandbox(ContainerId),
    /// It belongs to the pod of this sandbox.
    Member(ContainerId),
}

/// Reads the annotations of containerd's CRI plugin, CRI-O and dockershim.
///
/// # Errors
/// An unknown container type, a type without a sandbox id, an id that isn't one.
pub fn sandbox_role(_annotations: &HashMap<String, String>) -> Result<SandboxRole> {
    todo!()
}
