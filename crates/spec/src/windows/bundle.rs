//! A bundle on a Windows host.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};

use super::paths::make_absolute;
use super::validate::validate;
use crate::document::{Document, read};
use crate::{Bundle, Error, Result};

/// Reads and validates `config.json` in `path`, for Windows containers and for Linux containers in
/// a utility VM. The root file system need not exist: it may be put together from
/// `windows.layerFolders` later.
///
/// # Errors
/// The file can't be read, isn't a configuration, or breaks one of the specification's rules. The
/// error names the field.
pub fn load_bundle(path: &Path) -> Result<Bundle> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    // Not `canonicalize`: its paths, which begin with \\?\, are none for many programs.
    let bundle = std::path::absolute(path).map_err(unreadable)?;
    let config = bundle.join("config.json");
    let spec = parse_spec(&config, &read(&config)?, &bundle.to_string_lossy())?;
    let rootfs = spec.root().as_ref().map_or_else(PathBuf::new, |root| root.path().clone());
    // On Windows `vm` is refused.
    Ok(Bundle { path: bundle, spec, hardware: None, rootfs })
}

/// Reads a process document, as `exec --process` takes it; `-` is standard input. It is validated
/// once it is complete.
///
/// # Errors
/// The file can't be read, or isn't a process document.
pub fn load_process(path: &Path) -> Result<Process> {
    let bytes = read(path)?;
    let mut document = Document::new(path, &bytes)?;
    document.repair_process("");
    document.read()
}

/// The validated configuration of the file at `path`, its paths absolute against the bundle.
fn parse_spec(path: &Path, bytes: &[u8], bundle: &str) -> Result<Spec> {
    let mut document = Document::new(path, bytes)?;
    document.repair_configuration();
    let mut spec: Spec = document.read()?;
    validate(&spec)?;
    make_absolute(&mut spec, bundle)?;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn load(mut config: Value) -> Result<Spec> {
        config["ociVersion"] = "1.2.0".into();
        let text = config.to_string();
        parse_spec(Path::new("config.json"), text.as_bytes(), r"C:\bundle")
    }

    fn error(config: Value) -> String {
        load(config).unwrap_err().to_string()
    }

    #[test]
    fn a_windows_container_needs_no_root_but_layers() {
        let config = json!({
            "process": {"cwd": r"C:\", "args": ["cmd"], "user": {"username": "ContainerUser"}},
            "windows": {"layerFolders": ["base", r"D:\scratch"]},
        });
        let spec = load(config).unwrap();
        let folders = spec.windows().as_ref().unwrap().layer_folders().clone().unwrap();
        assert_eq!(folders, [r"C:\bundle\base", r"D:\scratch"]);
    }

    #[test]
    fn a_linux_container_has_paths_of_linux() {
        let process = json!({"cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0}});
        load(json!({"process": process, "linux": {}, "windows": {}})).unwrap();
        let process = json!({"cwd": r"C:\", "args": ["sh"]});
        let message = error(json!({"process": process, "linux": {}}));
        assert!(message.starts_with("process.cwd: "), "{message}");
    }

    #[test]
    fn a_command_line_stands_for_arguments() {
        load(json!({"process": {"cwd": r"C:\", "commandLine": "cmd /c dir"}, "windows": {}}))
            .unwrap();
        let message = error(json!({"process": {"cwd": r"C:\"}, "windows": {}}));
        assert!(message.starts_with("process.args: "), "{message}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (config, field) in [
            (json!({}), "windows: "),
            (json!({"windows": {}, "process": {"cwd": "x", "args": ["a"]}}), "process.cwd: "),
            (json!({"windows": {"layerFolders": [r"\a"]}}), "windows.layerFolders[0]: "),
            (json!({"windows": {}, "hooks": {"prestart": [{"path": "/a"}]}}), "hooks.prestart: "),
            (json!({"windows": {}, "annotations": {"io.runhcs.x": ""}}), "io.runhcs.x: "),
            (json!({"windows": {}, "vm": {"kernel": {"path": "/k"}}}), "vm: "),
        ] {
            let message = error(config);
            assert!(message.starts_with(field), "{message}");
        }
    }
}
