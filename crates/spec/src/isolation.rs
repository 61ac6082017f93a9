//! How strongly a container is isolated.

use std::path::Path;
use std::str::FromStr;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The annotation that asks for an isolation.
pub(crate) const ISOLATION: &str = "io.runhcs.isolation";
/// The program's name that asks for a VM.
const VM_PROGRAM: &str = "runhcs-vm";

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

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "process" => Ok(Self::Process),
            "vm" => Ok(Self::Vm),
            other => {
                let message = format!("{other:?} is unknown; it is `process` or `vm`");
                Err(Error::invalid("isolation", message))
            }
        }
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
///
/// # Errors
/// An annotation that names no isolation, even where something stronger decides.
pub fn decide_isolation(spec: &Spec, hints: IsolationHints<'_>) -> Result<Isolation> {
    let requested = requested_isolation(spec, hints.flag)?;
    let name = Path::new(hints.program_name).file_name();
    let by_name = (name == Some(VM_PROGRAM.as_ref())).then_some(Isolation::Vm);
    Ok(hints.inherited.or(requested).or(by_name).or(hints.configured).unwrap_or(Isolation::Process))
}

/// What was asked for this very container: by `--isolation`, by the annotation, or by a `vm`
/// object. Tells a wish that its sandbox contradicts from a mere default.
///
/// # Errors
/// An annotation that names no isolation.
pub fn requested_isolation(spec: &Spec, flag: Option<Isolation>) -> Result<Option<Isolation>> {
    let annotation = spec.annotations().as_ref().and_then(|all| all.get(ISOLATION));
    let annotation = match annotation.map(|text| text.parse()).transpose() {
        Ok(isolation) => isolation,
        Err(Error::Invalid { message, .. }) => return Err(Error::invalid(ISOLATION, message)),
        Err(other) => return Err(other),
    };
    let by_object = spec.vm().is_some().then_some(Isolation::Vm);
    Ok(flag.or(annotation).or(by_object))
}

/// What the configuration says on Windows: VM for a Linux container, or if it has a
/// `windows.hyperv` object.
pub fn windows_isolation(spec: &Spec) -> Isolation {
    let hyperv = spec.windows().as_ref().is_some_and(|windows| windows.hyperv().is_some());
    if spec.linux().is_some() || hyperv { Isolation::Vm } else { Isolation::Process }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(fields: serde_json::Value) -> Spec {
        let mut json = json!({"ociVersion": "1.0.0"});
        json.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(json).unwrap()
    }

    fn annotated(value: &str) -> Spec {
        spec(json!({"annotations": {ISOLATION: value}}))
    }

    #[test]
    fn the_stronger_hint_decides() {
        use Isolation::{Process, Vm};
        // Each row takes one hint away from the row above, and the next one decides.
        let with_vm =
            json!({"annotations": {ISOLATION: "process"}, "vm": {"kernel": {"path": "/k"}}});
        let rows = [
            (Some(Vm), Some(Process), with_vm.clone(), "runhcs", None, Vm),
            (None, Some(Vm), with_vm.clone(), "runhcs", None, Vm),
            (None, None, with_vm, "runhcs-vm", Some(Vm), Process),
            (None, None, json!({"vm": {"kernel": {"path": "/k"}}}), "runhcs", Some(Process), Vm),
            (None, None, json!({}), "runhcs-vm", Some(Process), Vm),
            (None, None, json!({}), "/usr/bin/runhcs-vm", None, Vm),
            (None, None, json!({}), "runhcs", Some(Vm), Vm),
            (None, None, json!({}), "runhcs", None, Process),
            (None, None, json!({}), "", None, Process),
            (None, None, json!({}), "not-runhcs-vm", None, Process),
            (Some(Process), Some(Vm), json!({}), "runhcs-vm", Some(Vm), Process),
        ];
        for (inherited, flag, fields, program_name, configured, expected) in rows {
            let hints = IsolationHints { inherited, flag, program_name, configured };
            let found = decide_isolation(&spec(fields.clone()), hints).unwrap();
            assert_eq!(found, expected, "{hints:?} {fields}");
        }
    }

    #[test]
    fn a_request_is_told_from_a_default() {
        let vm = Some(Isolation::Vm);
        assert_eq!(requested_isolation(&spec(json!({})), None).unwrap(), None);
        assert_eq!(requested_isolation(&spec(json!({})), vm).unwrap(), vm);
        assert_eq!(requested_isolation(&annotated("vm"), None).unwrap(), vm);
        let process = Some(Isolation::Process);
        assert_eq!(requested_isolation(&annotated("vm"), process).unwrap(), process);
    }

    #[test]
    fn an_unknown_isolation_is_an_error_wherever_it_stands() {
        let error = "hyperv".parse::<Isolation>().unwrap_err().to_string();
        assert_eq!(error, "isolation: \"hyperv\" is unknown; it is `process` or `vm`");
        for text in ["", "VM", "none"] {
            let hints = IsolationHints { inherited: Some(Isolation::Vm), ..Default::default() };
            let error = decide_isolation(&annotated(text), hints).unwrap_err().to_string();
            assert!(error.starts_with("io.runhcs.isolation: "), "{error}");
        }
    }

    #[test]
    fn on_windows_the_objects_decide() {
        for (fields, expected) in [
            (json!({}), Isolation::Process),
            (json!({"windows": {}}), Isolation::Process),
            (json!({"windows": {"hyperv": {}}}), Isolation::Vm),
            (json!({"windows": {}, "linux": {}}), Isolation::Vm),
        ] {
            assert_eq!(windows_isolation(&spec(fields.clone())), expected, "{fields}");
        }
    }
}
