//! What is particular to a Windows guest.

use oci_spec::runtime::Spec;

use super::Annotations;
use super::names::*;
use crate::Result;

/// The options of a Windows guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WcowOptions {
    /// Whether the guest's containers don't get network compartments of their own kind.
    pub no_compartment_namespace: bool,
    /// Whether files of the host are never mapped into the guest's memory.
    pub no_direct_map: bool,
}

impl WcowOptions {
    /// Translates the configuration.
    ///
    /// # Errors
    /// A value that is not of its type.
    pub fn from_spec(spec: &Spec) -> Result<Self> {
        let annotations = Annotations::of(spec);
        Ok(Self {
            no_compartment_namespace: annotations.flag(NO_COMPARTMENT_NAMESPACE)?.unwrap_or(false),
            no_direct_map: annotations.flag(NO_DIRECT_MAP)?.unwrap_or(false),
        })
    }
}
