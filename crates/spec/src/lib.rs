//! The OCI configuration of a container: loaded, validated, its paths made absolute, and what its
//! annotations and fields say about isolation, sandbox and utility VM. Knows no operating system's
//! calls beyond reading one file.

mod annotations;
mod bundle;
mod error;
mod isolation;
mod vm_options;

pub use annotations::{SandboxRole, sandbox_role};
pub use bundle::{Bundle, load_process};
pub use error::{Error, Result};
pub use isolation::{Isolation, IsolationHints, decide_isolation};
pub use vm_options::{Accelerator, Machine, VmDefaults, VmOptions};
