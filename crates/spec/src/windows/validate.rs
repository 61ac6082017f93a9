//! The specification's rules for a configuration on a Windows host.

use oci_spec::runtime::{Process, Spec};

use super::paths::is_absolute;
use crate::validate::{hooks, validate_annotations, validate_process_values, validate_version};
use crate::{Error, Result};

/// Checks a whole configuration.
pub(super) fn validate(spec: &Spec) -> Result<()> {
    validate_version(spec.version())?;
    if spec.windows().is_none() && spec.linux().is_none() {
        let message = "missing; a container needs it, or `linux` for a Linux container in a VM";
        return Err(Error::invalid("windows", message));
    }
    if spec.vm().is_some() {
        let message = "not supported on Windows; VMs are asked for by `windows.hyperv` or `linux`";
        return Err(Error::invalid("vm", message));
    }
    if let Some(process) = spec.process() {
        validate_process(process, "process.", spec.linux().is_some())?;
    }
    refuse_hooks(spec)?;
    validate_annotations(spec)
}

/// Checks a process of a Windows container, or of a Linux one in a VM. `prefix` is where it is, for
/// messages: `process.`, or nothing for a document of its own.
///
/// # Errors
/// No program, a working directory that isn't absolute, an environment entry without a name, a
/// console that is too large.
pub fn validate_process(process: &Process, prefix: &str, is_linux: bool) -> Result<()> {
    let field = |name: &str| format!("{prefix}{name}");
    let has_line = process.command_line().as_ref().is_some_and(|line| !line.is_empty());
    match process.args().as_deref().unwrap_or_default().first() {
        None if has_line && !is_linux => {}
        None => return Err(Error::invalid(field("args"), "missing; it starts with the program")),
        Some(program) if program.is_empty() => {
            return Err(Error::invalid(field("args[0]"), "the program's name is empty"));
        }
        Some(_) => {}
    }
    let cwd = process.cwd().to_string_lossy();
    let (absolute, such_as) = match is_linux {
        true => (cwd.starts_with('/'), "such as /"),
        // The image's own, if nothing is said.
        false => (cwd.is_empty() || is_absolute(&cwd), r"such as C:\"),
    };
    if !absolute {
        return Err(Error::invalid(
            field("cwd"),
            format!("{cwd:?} is not an absolute path {such_as}"),
        ));
    }
    validate_process_values(process, prefix)
}

/// Hooks are programs for Linux: what they find of a container is its pid and namespaces.
fn refuse_hooks(spec: &Spec) -> Result<()> {
    match hooks(spec).next() {
        None => Ok(()),
        Some((point, _)) => {
            let message = "hooks are not supported on Windows";
            Err(Error::invalid(format!("hooks.{point}"), message))
        }
    }
}
