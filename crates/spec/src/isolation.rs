//! How strongly a container is isolated.

use std::str::FromStr;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How strongly a container is isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// A process of this host in namespaces (or a Windows server silo).
    Process,
    /// A process in a utility VM.
    Vm,
}

impl FromStr for Isolation {
    type Err = Error;

    fn from_str(_text: &str) -> Result<Self> {
        todo!()
    }
}

/// What is known besides the configuration, strongest first.
#[derive(Clone, Copy, Debug, Default)]
pub struct IsolationHints<'a> {
    /// The answer of the sandbox or of `--host`, if there is one.
    pub inherited: Option<Isolation>,
    /// `--isolation`.
    pub flag: Option<Isolation>,
    /// The name the command was called by.
    pub program_name: &'a str,
    /// The configuration file's default.
    pub configured: Option<Isolation>,
}

/// Decides, in the order: inherited, flag, the annotation `io.runhcs.isolation`, a `vm` object in
/// the configuration, the program's name (`runhcs-vm`), the configuration file, else process.
pub fn decide_isolation(_spec: &Spec, _hints: IsolationHints<'_>) -> Result<Isolation> {
    todo!()
}
