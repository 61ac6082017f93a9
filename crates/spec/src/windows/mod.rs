//! Configurations for Windows. Pure functions on text but for reading the file, because the rules
//! are those of Windows wherever the configuration is looked at.

mod bundle;
mod default_spec;
mod paths;
mod validate;

pub use bundle::{load_bundle, load_process};
pub use default_spec::default_spec;
pub use paths::{is_absolute, make_absolute};
pub use validate::validate_process;
