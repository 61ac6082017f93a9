//! The specification's rules that the types don't express. Nothing is looked up in the system.

use std::collections::HashSet;
use std::path::Path;

use oci_spec::runtime::{Hook, LinuxNamespaceType, Process, Spec};

use crate::annotations::refuse_unknown_own;
use crate::{Error, Result};

/// The kernel's limit for host and domain names (sethostname(2)).
const LONGEST_HOST_NAME: usize = 64;

/// Writes in one way what may be written in several: an empty namespace path is no path.
pub(crate) fn normalize(spec: &mut Spec) {
    let Some(linux) = spec.linux_mut() else { return };
    for namespace in linux.namespaces_mut().iter_mut().flatten() {
        if namespace.path().as_deref() == Some(Path::new("")) {
            namespace.set_path(None);
        }
    }
}

/// Checks a whole configuration.
pub(crate) fn validate(spec: &Spec) -> Result<()> {
    validate_version(spec.version())?;
    if spec.windows().is_some() && spec.linux().is_none() {
        return Err(Error::invalid(
            "windows",
            "this is a configuration for Windows, it has no `linux` object",
        ));
    }
    if let Some(process) = spec.process() {
        validate_process(process, "process.")?;
    }
    validate_namespaces(spec)?;
    validate_paths(spec)?;
    validate_hooks(spec)?;
    validate_annotations(spec)
}

pub(crate) fn validate_annotations(spec: &Spec) -> Result<()> {
    for key in spec.annotations().iter().flatten().map(|(key, _)| key) {
        if key.is_empty() {
            return Err(Error::invalid("annotations", "a key is empty"));
        }
    }
    refuse_unknown_own(spec)
}

pub(crate) fn validate_version(version: &str) -> Result<()> {
    let invalid = |message: String| Err(Error::invalid("ociVersion", message));
    if version.is_empty() {
        return invalid("missing; it is the specification's version, such as 1.2.0".into());
    }
    match semver::Version::parse(version) {
        Ok(parsed) if parsed.major == 1 => Ok(()),
        Ok(_) => invalid(format!("{version:?} is not supported, only versions 1.x are")),
        Err(error) => invalid(format!("{version:?} is not a version: {error}")),
    }
}

/// Checks a process. `prefix` is where it is, for messages: `process.`, or nothing for a document
/// of its own.
///
/// # Errors
/// No program, a working directory that isn't absolute, an environment entry without a name, a
/// resource limit given twice or with its soft above its hard limit.
pub fn validate_process(process: &Process, prefix: &str) -> Result<()> {
    let field = |name: &str| format!("{prefix}{name}");
    match process.args().as_deref().unwrap_or_default().first() {
        None => return Err(Error::invalid(field("args"), "missing; it starts with the program")),
        Some(program) if program.is_empty() => {
            return Err(Error::invalid(field("args[0]"), "the program's name is empty"));
        }
        Some(_) => {}
    }
    if !process.cwd().starts_with("/") {
        let cwd = process.cwd().display().to_string();
        return Err(Error::invalid(field("cwd"), format!("{cwd:?} is not an absolute path")));
    }
    validate_process_values(process, prefix)
}

/// Checks what doesn't depend on the system that the process is for.
pub(crate) fn validate_process_values(process: &Process, prefix: &str) -> Result<()> {
    let field = |name: &str| format!("{prefix}{name}");
    validate_environment(process.env().as_deref(), &field("env"))?;
    if let Some(umask) = process.user().umask().filter(|umask| *umask > 0o777) {
        let message = format!("{umask:#o} has more than the nine bits of permissions (0o777)");
        return Err(Error::invalid(field("user.umask"), message));
    }
    let mut types = HashSet::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let name = limit.typ().to_string();
        let field = |part: &str| field(&format!("rlimits[{index}].{part}"));
        if !types.insert(name.clone()) {
            return Err(Error::invalid(field("type"), format!("{name} is given twice")));
        }
        if limit.soft() > limit.hard() {
            let message = format!("{} is above the hard limit {}", limit.soft(), limit.hard());
            return Err(Error::invalid(field("soft"), message));
        }
    }
    if let Some(size) = process.console_size() {
        for (name, value) in [("height", size.height()), ("width", size.width())] {
            if value > u64::from(u16::MAX) {
                let field = field(&format!("consoleSize.{name}"));
                return Err(Error::invalid(field, format!("{value} is above {}", u16::MAX)));
            }
        }
    }
    Ok(())
}

fn validate_environment(environment: Option<&[String]>, field: &str) -> Result<()> {
    for (index, entry) in environment.unwrap_or_default().iter().enumerate() {
        if matches!(entry.find('='), None | Some(0)) {
            let message = format!("{entry:?} is not of the form name=value");
            return Err(Error::invalid(format!("{field}[{index}]"), message));
        }
    }
    Ok(())
}

fn validate_namespaces(spec: &Spec) -> Result<()> {
    let namespaces =
        spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    for (index, namespace) in namespaces.iter().enumerate() {
        let field = |name: &str| format!("linux.namespaces[{index}].{name}");
        let first = namespaces.iter().position(|other| other.typ() == namespace.typ());
        if let Some(first) = first.filter(|first| *first < index) {
            let message = format!("linux.namespaces[{first}] has the same type");
            return Err(Error::invalid(field("type"), message));
        }
        if let Some(path) = namespace.path().as_ref().filter(|path| !path.starts_with("/")) {
            let message = format!("{:?} is not an absolute path", path.display().to_string());
            return Err(Error::invalid(field("path"), message));
        }
    }
    let has_uts = namespaces.iter().any(|each| each.typ() == LinuxNamespaceType::Uts);
    for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if name.as_ref().is_some_and(|name| !name.is_empty()) && !has_uts {
            let message = "can only be set in a UTS namespace, linux.namespaces lists none";
            return Err(Error::invalid(field, message));
        }
        if let Some(name) = name.as_ref().filter(|name| name.len() > LONGEST_HOST_NAME) {
            let message = format!("{name:?} is longer than {LONGEST_HOST_NAME} bytes");
            return Err(Error::invalid(field, message));
        }
    }
    let has_user = namespaces.iter().any(|each| each.typ() == LinuxNamespaceType::User);
    let linux = spec.linux().as_ref();
    for (field, mappings) in [
        ("linux.uidMappings", linux.and_then(|linux| linux.uid_mappings().as_deref())),
        ("linux.gidMappings", linux.and_then(|linux| linux.gid_mappings().as_deref())),
    ] {
        if !mappings.unwrap_or_default().is_empty() && !has_user {
            let message = "are of a user namespace, linux.namespaces lists none";
            return Err(Error::invalid(field, message));
        }
    }
    Ok(())
}

/// Paths in the container, and of the seccomp agent.
fn validate_paths(spec: &Spec) -> Result<()> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let lists = [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())];
    let listed = lists.into_iter().flat_map(|(name, paths)| {
        let paths = paths.iter().flatten().enumerate();
        paths.map(move |(index, path)| (format!("linux.{name}[{index}]"), Path::new(path)))
    });
    let agent = linux.seccomp().as_ref().and_then(|seccomp| seccomp.listener_path().as_deref());
    let agent = agent.filter(|path| !path.as_os_str().is_empty());
    let agent = agent.map(|path| ("linux.seccomp.listenerPath".to_owned(), path));
    for (field, path) in listed.chain(agent) {
        if !path.has_root() {
            let message = format!("{:?} is not an absolute path", path.display().to_string());
            return Err(Error::invalid(field, message));
        }
    }
    Ok(())
}

fn validate_hooks(spec: &Spec) -> Result<()> {
    for (point, hooks) in hooks(spec) {
        for (index, hook) in hooks.iter().enumerate() {
            validate_hook(hook, &format!("hooks.{point}[{index}]"))?;
        }
    }
    Ok(())
}

/// The hooks of each point at which there are any, by its field.
pub(crate) fn hooks(spec: &Spec) -> impl Iterator<Item = (&'static str, &[Hook])> {
    let points = spec.hooks().iter().flat_map(|hooks| {
        [
            ("prestart", hooks.prestart()),
            ("createRuntime", hooks.create_runtime()),
            ("createContainer", hooks.create_container()),
            ("startContainer", hooks.start_container()),
            ("poststart", hooks.poststart()),
            ("poststop", hooks.poststop()),
        ]
    });
    let given = points.filter_map(|(point, hooks)| Some((point, hooks.as_deref()?)));
    given.filter(|(_, hooks)| !hooks.is_empty())
}

fn validate_hook(hook: &Hook, field: &str) -> Result<()> {
    if !hook.path().starts_with("/") {
        let path = hook.path().display().to_string();
        let message = format!("{path:?} is not an absolute path");
        return Err(Error::invalid(format!("{field}.path"), message));
    }
    validate_environment(hook.env().as_deref(), &format!("{field}.env"))?;
    match hook.timeout() {
        Some(seconds) if seconds <= 0 => {
            let message = format!("{seconds} is not a number of seconds above 0");
            Err(Error::invalid(format!("{field}.timeout"), message))
        }
        _ => Ok(()),
    }
}

/// Whether the container gets a new pid namespace: `linux.namespaces` has one without a path.
pub fn has_own_pid_namespace(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let listed = linux.and_then(|linux| linux.namespaces().as_ref());
    listed.into_iter().flatten().any(|namespace| {
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        namespace.typ() == LinuxNamespaceType::Pid && path.is_none()
    })
}
