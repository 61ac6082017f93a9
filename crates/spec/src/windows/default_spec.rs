//! The configuration a new bundle starts from on Windows.

use oci_spec::runtime::Spec;
use serde_json::json;

use crate::{OCI_VERSION, typed};

/// The configuration `runhcs spec` prints on Windows: a command interpreter in a container on this
/// host. The layer folders are the caller's to fill in.
pub fn default_spec() -> Spec {
    let json = json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": true,
            "user": {"username": "ContainerUser"},
            "args": ["cmd.exe"],
            "cwd": r"C:\",
        },
        "hostname": "runhcs",
        "windows": {"layerFolders": ["base", "scratch"]},
    });
    typed::read(&json).expect("the built-in configuration is valid; a test reads it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_valid() {
        let spec = default_spec();
        super::super::validate::validate(&spec).unwrap();
        assert!(spec.windows().is_some() && spec.linux().is_none());
    }
}
