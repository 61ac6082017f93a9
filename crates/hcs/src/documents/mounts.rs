//! The mounts of a Windows container: folders and files of the host, and named pipes.

use oci_spec::runtime::Spec;

use crate::{Invalid, Result};

/// What the path of a named pipe begins with.
const PIPE: &str = r"\\.\pipe\";
/// What names a place in the virtual machine of the pod instead of one on the host.
const SANDBOX: &str = "sandbox://";
/// Where those places are in a Windows guest.
const SANDBOX_FOLDER: &str = r"C:\SandboxMounts";

/// What is seen in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A folder or file of the host.
    Host(String),
    /// A folder or file of the virtual machine.
    Guest(String),
    /// A named pipe of the host, by its name without `\\.\pipe\`.
    Pipe(String),
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowsMount {
    /// What is seen.
    pub source: MountSource,
    /// Where; for a pipe its name without `\\.\pipe\`.
    pub destination: String,
    /// Whether the container can't write.
    pub read_only: bool,
}

/// The mounts of a configuration for a Windows container.
///
/// # Errors
/// A mount without source or destination, of a type or with an option that isn't supported, or
/// that maps a pipe to a folder.
pub fn windows_mounts(spec: &Spec, in_vm: bool) -> Result<Vec<WindowsMount>> {
    let mounts = spec.mounts().iter().flatten().enumerate();
    mounts
        .map(|(index, mount)| {
            let field = |name: &str| format!("mounts[{index}].{name}");
            let destination = mount.destination().to_string_lossy().into_owned();
            let source = mount.source().as_ref().map(|path| path.to_string_lossy().into_owned());
            let source = source.filter(|path| !path.is_empty()).ok_or_else(|| {
                Invalid::new(field("source"), "missing; it is what is seen in the container")
            })?;
            if destination.is_empty() {
                return Err(Invalid::new(field("destination"), "missing; it is where to mount"));
            }
            match mount.typ().as_deref() {
                None | Some("" | "bind") => {}
                Some(other) => {
                    let message = format!(
                        "{other:?} is not supported on Windows; folders, files and pipes have no type"
                    );
                    return Err(Invalid::new(field("type"), message));
                }
            }
            let read_only = read_only(mount.options().iter().flatten(), &field("options"))?;
            one(&source, &destination, in_vm).map(|(source, destination)| WindowsMount {
                source,
                destination,
                read_only,
            }).map_err(|message| Invalid::new(field("source"), message))
        })
        .collect()
}

fn read_only<'a>(options: impl Iterator<Item = &'a String>, field: &str) -> Result<bool> {
    let mut read_only = false;
    for option in options {
        match option.to_ascii_lowercase().as_str() {
            "ro" => read_only = true,
            "rw" => read_only = false,
            // What an engine adds for every system.
            "bind" | "rbind" => {}
            other => {
                let message = format!("{other:?} is not supported on Windows; `ro` and `rw` are");
                return Err(Invalid::new(field, message));
            }
        }
    }
    Ok(read_only)
}

fn one(
    source: &str,
    destination: &str,
    in_vm: bool,
) -> std::result::Result<(MountSource, String), String> {
    match (pipe_name(source), pipe_name(destination)) {
        (Some(source), Some(destination)) => {
            Ok((MountSource::Pipe(source.to_owned()), destination.to_owned()))
        }
        (Some(_), None) | (None, Some(_)) => Err(format!(
            "{source:?} and the destination {destination:?} must both be pipes or none"
        )),
        (None, None) => match source.strip_prefix(SANDBOX) {
            Some(_) if !in_vm => {
                Err(format!("{source:?} is in a virtual machine, but the container isn't"))
            }
            Some(path) => {
                let path = path.trim_start_matches('/').replace('/', r"\");
                if path.split('\\').any(|part| part == "..") {
                    return Err(format!("{source:?} leads out of {SANDBOX}"));
                }
                let path = format!(r"{SANDBOX_FOLDER}\{path}");
                Ok((MountSource::Guest(path), folder(destination)))
            }
            None => Ok((MountSource::Host(source.to_owned()), folder(destination))),
        },
    }
}

fn pipe_name(path: &str) -> Option<&str> {
    let start = path.get(..PIPE.len())?;
    start.replace('/', r"\").eq_ignore_ascii_case(PIPE).then(|| &path[PIPE.len()..])
}

/// A folder in the container, absolute.
fn folder(path: &str) -> String {
    let path = path.replace('/', r"\");
    if path.starts_with('\\') && !path.starts_with(r"\\") { format!("C:{path}") } else { path }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mount(mount: serde_json::Value, in_vm: bool) -> Result<WindowsMount> {
        let json = json!({"ociVersion": "1.0.0", "mounts": [mount]});
        let spec: Spec = serde_json::from_value(json).unwrap();
        windows_mounts(&spec, in_vm).map(|mut mounts| mounts.remove(0))
    }

    #[test]
    fn every_kind() {
        for (json, source, destination, read_only) in [
            (
                json!({"source": r"C:\data", "destination": r"C:\d", "options": ["ro"]}),
                MountSource::Host(r"C:\data".into()),
                r"C:\d",
                true,
            ),
            (
                json!({"source": r"C:\data", "destination": "/d/e", "options": ["rbind", "rw"]}),
                MountSource::Host(r"C:\data".into()),
                r"C:\d\e",
                false,
            ),
            (
                json!({"source": r"\\.\pipe\docker", "destination": r"\\.\PIPE\engine"}),
                MountSource::Pipe("docker".into()),
                "engine",
                false,
            ),
            (
                json!({"source": "sandbox:///a/b", "destination": r"D:\x"}),
                MountSource::Guest(r"C:\SandboxMounts\a\b".into()),
                r"D:\x",
                false,
            ),
        ] {
            let found = mount(json, true).unwrap();
            let expected = WindowsMount { source, destination: destination.into(), read_only };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        for (json, field) in [
            (json!({"destination": "x"}), "mounts[0].source"),
            (json!({"source": "x", "destination": ""}), "mounts[0].destination"),
            (json!({"source": "x", "destination": "y", "type": "tmpfs"}), "mounts[0].type"),
            (json!({"source": "x", "destination": "y", "options": ["z"]}), "mounts[0].options"),
            (json!({"source": r"\\.\pipe\a", "destination": r"C:\a"}), "mounts[0].source"),
            (json!({"source": "sandbox://a/../b", "destination": "y"}), "mounts[0].source"),
        ] {
            assert_eq!(mount(json, true).unwrap_err().field, field);
        }
        let error = mount(json!({"source": "sandbox:///a", "destination": "y"}), false);
        assert!(error.unwrap_err().message.contains("isn't"));
    }
}
