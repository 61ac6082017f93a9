//! The document of a compute system, whatever it is.

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::{Container, VirtualMachine, documents};

/// A version of the schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    /// Changes that break documents.
    pub major: u32,
    /// Additions.
    pub minor: u32,
}

impl Version {
    /// 2.1, of Windows Server 2019: the version in which every document of this crate is written.
    pub const V2_1: Self = Self { major: 2, minor: 1 };
}

documents! {
    /// What is passed to `HcsCreateComputeSystem`. Exactly one of `container`, `virtual_machine`
    /// and `hosted_system` is there.
    pub struct ComputeSystem {
        /// Who it belongs to; a free text that queries can ask for.
        pub owner: String,
        /// The version of this document.
        pub schema_version: Option<Version>,
        /// The id of the virtual machine in which a hosted system is to be made.
        pub hosting_system_id: String,
        /// A container in that virtual machine.
        pub hosted_system: Option<HostedSystem>,
        /// A container on this host.
        pub container: Option<Container>,
        /// A virtual machine.
        pub virtual_machine: Option<VirtualMachine>,
        /// Whether it ends with the last handle to it.
        pub should_terminate_on_last_handle_closed: bool,
    }

    /// A container in a virtual machine, as the guest's compute service takes it. For Windows it
    /// has a `container`, for Linux the rest.
    pub struct HostedSystem {
        /// The version of this document.
        pub schema_version: Option<Version>,
        /// A Windows container.
        pub container: Option<Container>,
        /// A Linux container's directory in the guest.
        pub oci_bundle_path: String,
        /// A Linux container's configuration.
        pub oci_specification: Option<Spec>,
        /// The directory in the guest for what a Linux container writes.
        pub scratch_dir_path: String,
    }
}
