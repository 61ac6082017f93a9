//! The OCI configuration of a container: loaded, validated, its paths made absolute, and what its
//! annotations and fields say about isolation, sandbox and utility VM. Knows no operating system's
//! calls beyond reading one file and finding the root file system's directory.

mod annotations;
mod bundle;
mod container_annotations;
mod default_spec;
mod document;
mod error;
mod field_path;
mod isolation;
mod mounts;
mod resources;
mod scratch;
mod tree;
mod typed;
mod validate;
mod vm_hardware;
mod vm_options;
pub mod windows;

pub use annotations::{SandboxRole, sandbox_role};
pub use bundle::{Bundle, configuration_from, load_process};
pub use container_annotations::apply_container_annotations;
pub use default_spec::{OCI_VERSION, add_cgroup_namespace, default_spec, rootless_spec};
pub use error::{Error, Result};
pub use isolation::{
    Isolation, IsolationHints, decide_isolation, requested_isolation, windows_isolation,
};
pub use resources::{load_resources, resources_from};
pub use scratch::Scratch;
pub use validate::{has_own_pid_namespace, validate_process};
pub use vm_hardware::VmHardware;
pub use vm_options::{
    Accelerator, Console, DEFAULT_INITRAMFS, DEFAULT_KERNEL, DEFAULT_TEMPLATES, Entropy,
    GUEST_OVERHEAD_MIB, Machine, TemplateUse, VmDefaults, VmOptions,
};
