//! Making the paths of a configuration absolute.

use oci_spec::runtime::Spec;

use crate::{Error, Result};

/// Makes layer folders, the utility VM's path and the root's path absolute against the bundle.
///
/// Each path is judged by itself. With a drive (`C:\a`), as a share (`\\server\a`) or a device
/// (`\\?\a`, `\\.\a`) it is absolute and stays as it is; otherwise it is relative to the bundle.
///
/// # Errors
/// A path that depends on the current drive or its current directory (`\a`, `C:a`), one that holds
/// more `..` than there are directories, a relative root outside the bundle.
pub fn make_absolute(spec: &mut Spec, bundle: &str) -> Result<()> {
    if let Some(root) = spec.root_mut() {
        let path = root.path().to_string_lossy().into_owned();
        if !path.is_empty() {
            let full = absolute("root.path", bundle, &path)?;
            if !is_absolute(&path) && !is_beneath(&full, bundle) {
                let message = format!("{path:?} leads out of the bundle {bundle}");
                return Err(Error::invalid("root.path", message));
            }
            root.set_path(full.into());
        }
    }
    let Some(mut windows) = spec.windows().clone() else { return Ok(()) };
    if let Some(folders) = windows.layer_folders() {
        let folders = folders.iter().enumerate();
        let full = folders.map(|(index, folder)| {
            absolute(&format!("windows.layerFolders[{index}]"), bundle, folder)
        });
        let full = full.collect::<Result<Vec<_>>>()?;
        windows.set_layer_folders(Some(full));
    }
    if let Some(mut hyperv) = windows.hyperv().clone() {
        if let Some(path) = hyperv.utility_vm_path() {
            let full = absolute("windows.hyperv.utilityVMPath", bundle, path)?;
            hyperv.set_utility_vm_path(Some(full));
        }
        windows.set_hyperv(Some(hyperv));
    }
    spec.set_windows(Some(windows));
    Ok(())
}

/// Whether a path says where it leads without a current drive or directory.
pub fn is_absolute(path: &str) -> bool {
    has_double_separator(path)
        || matches!(path.as_bytes(), [drive, b':', sep, ..]
            if drive.is_ascii_alphabetic() && is_separator(*sep))
}

/// The path made absolute against the bundle; `field` is where it stands in the configuration.
fn absolute(field: &str, bundle: &str, path: &str) -> Result<String> {
    if path.is_empty() {
        return Err(Error::invalid(field, "the path is empty"));
    }
    if is_absolute(path) {
        return Ok(path.to_owned());
    }
    let bytes = path.as_bytes();
    if is_separator(bytes[0]) || bytes.get(1) == Some(&b':') {
        let message = format!("{path:?} depends on the current drive; begin it with a drive");
        return Err(Error::invalid(field, message));
    }
    // A path that begins with \\?\ is taken literally, so `.`, `..` and `/` are resolved here.
    let mut parts: Vec<&str> = bundle.trim_end_matches(['\\', '/']).split('\\').collect();
    let prefix = prefix_parts(bundle);
    for part in path.split(['\\', '/']) {
        match part {
            "" | "." => {}
            ".." if parts.len() > prefix => {
                parts.pop();
            }
            ".." => {
                let message = format!("{path:?} leads above the root of {bundle}");
                return Err(Error::invalid(field, message));
            }
            name => parts.push(name),
        }
    }
    Ok(parts.join("\\"))
}

/// How many parts of a path, split at its backslashes, `..` must not remove: the drive, the
/// server and share, the device and its volume.
fn prefix_parts(path: &str) -> usize {
    if has_double_separator(path) { 4 } else { 1 }
}

/// Whether an absolute path is in a directory, by Windows' disregard of case.
fn is_beneath(path: &str, directory: &str) -> bool {
    let directory = directory.trim_end_matches(['\\', '/']).to_lowercase();
    let path = path.to_lowercase();
    path.strip_prefix(&directory).is_some_and(|rest| rest.starts_with('\\'))
}

fn has_double_separator(path: &str) -> bool {
    matches!(path.as_bytes(), [one, two, ..] if is_separator(*one) && is_separator(*two))
}

fn is_separator(byte: u8) -> bool {
    byte == b'\\' || byte == b'/'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn absolute_paths_are_told_from_others() {
        for path in [r"C:\a", "c:/a", r"\\server\share", r"\\?\Volume{1}\", r"\\.\pipe\a", "//s/a"]
        {
            assert!(is_absolute(path), "{path}");
        }
        for path in ["", "a", r"a\b", r"\a", "/a", "C:a", "C:", r"1:\a", r".\a"] {
            assert!(!is_absolute(path), "{path}");
        }
    }

    #[test]
    fn every_path_is_judged_by_itself() {
        let json = json!({
            "ociVersion": "1.0.0",
            "root": {"path": "rootfs"},
            "windows": {
                "layerFolders": [r"\\?\C:\layers\1", "2", r"D:\layers\3", r"..\4", "./5/x"],
                "hyperv": {"utilityVmPath": "uvm"},
            },
        });
        let mut spec: Spec = serde_json::from_value(json.clone()).unwrap();
        make_absolute(&mut spec, r"C:\bundles\b").unwrap();
        let windows = spec.windows().as_ref().unwrap();
        let expected = [
            r"\\?\C:\layers\1",
            r"C:\bundles\b\2",
            r"D:\layers\3",
            r"C:\bundles\4",
            r"C:\bundles\b\5\x",
        ];
        assert_eq!(windows.layer_folders().as_ref().unwrap(), &expected);
        let hyperv = windows.hyperv().as_ref().unwrap();
        assert_eq!(hyperv.utility_vm_path().as_deref(), Some(r"C:\bundles\b\uvm"));
        assert_eq!(spec.root().as_ref().unwrap().path().to_str(), Some(r"C:\bundles\b\rootfs"));
    }

    #[test]
    fn a_root_may_be_absent_or_elsewhere_if_absolute() {
        for (root, expected) in
            [(None, None), (Some(r"\\?\Volume{1}\"), Some(r"\\?\Volume{1}\")), (Some(""), Some(""))]
        {
            let root = root.map(|path| json!({"path": path}));
            let json = json!({"ociVersion": "1.0.0", "root": root, "windows": {}});
            let mut spec: Spec = serde_json::from_value(json).unwrap();
            make_absolute(&mut spec, r"C:\b").unwrap();
            let path = spec.root().as_ref().and_then(|root| root.path().to_str());
            assert_eq!(path, expected);
        }
    }

    #[test]
    fn paths_without_a_sure_meaning_are_refused() {
        for (path, message) in [
            (r"\a", "depends on the current drive"),
            ("/a", "depends on the current drive"),
            ("C:a", "depends on the current drive"),
            ("", "the path is empty"),
            (r"..\..\..", "leads above the root"),
        ] {
            let json = json!({"ociVersion": "1.0.0", "windows": {"layerFolders": ["ok", path]}});
            let mut spec: Spec = serde_json::from_value(json).unwrap();
            let error = make_absolute(&mut spec, r"C:\bundles\b").unwrap_err().to_string();
            assert!(error.starts_with("windows.layerFolders[1]: "), "{error}");
            assert!(error.contains(message), "{error}");
        }
        for path in [r"..\c", r"..\bundle2", r"x\..\..\y"] {
            let json = json!({"ociVersion": "1.0.0", "root": {"path": path}});
            let mut spec: Spec = serde_json::from_value(json).unwrap();
            let error = make_absolute(&mut spec, r"C:\bundle").unwrap_err().to_string();
            assert!(error.contains("leads out of the bundle"), "{error}");
        }
        let long = absolute("f", r"\\?\C:\b", r"..\..\x").unwrap_err().to_string();
        assert!(long.contains("leads above"), "{long}");
    }

    proptest! {
        #[test]
        fn what_comes_out_is_absolute_and_stays_so(path in r"[a-cC:.\\/?]{0,10}") {
            for bundle in [r"C:\b\c", r"\\?\C:\b\c", r"\\server\share\b"] {
                if let Ok(full) = absolute("f", bundle, &path) {
                    prop_assert!(is_absolute(&full), "{} {}", path, full);
                    prop_assert_eq!(absolute("f", bundle, &full).unwrap(), full);
                }
            }
        }
    }
}
