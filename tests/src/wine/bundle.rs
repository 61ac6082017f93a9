//! Bundles for Windows: Windows containers and Linux ones, with layers that the stand-in takes.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Wine, windows_path};

/// What a bundle's container is.
pub type Kind = fn() -> Value;

/// A Windows container. A `hyperv` object puts it into a VM.
pub const WINDOWS: Kind = || {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"username": "ContainerUser"},
            "cwd": "C:\\",
            "args": ["cmd", "/c", "exit 0"],
        },
        "windows": {},
    })
};

/// A Linux container, which is always in a VM.
pub const LINUX: Kind = || {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "args": ["true"],
        },
        "linux": {},
        "windows": {},
    })
};

/// A bundle's directory.
#[derive(Debug)]
pub struct WindowsBundle {
    path: PathBuf,
    /// Its configuration.
    pub spec: Value,
}

impl WindowsBundle {
    /// Makes a bundle with one layer and a writable one of its own. `change` adapts its
    /// configuration.
    pub fn new(wine: &Wine, name: &str, kind: Kind, change: impl FnOnce(&mut Value)) -> Self {
        let path = wine.path(name);
        let layer = wine.path("layer");
        let scratch = path.join("scratch");
        for directory in [&layer.join("UtilityVM/Files"), &scratch] {
            std::fs::create_dir_all(directory).unwrap();
        }
        for file in [
            layer.join("layer.vhd"),
            layer.join("UtilityVM/SystemTemplate.vhdx"),
            scratch.join("sandbox.vhdx"),
        ] {
            std::fs::write(file, "a disk").unwrap();
        }
        let mut spec = kind();
        spec["windows"]["layerFolders"] = json!([windows_path(&layer), windows_path(&scratch)]);
        change(&mut spec);
        std::fs::write(path.join("config.json"), spec.to_string()).unwrap();
        Self { path, spec }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Changes a configuration to one that is isolated by a VM.
pub fn hyperv(spec: &mut Value) {
    spec["windows"]["hyperv"] = json!({});
}

/// Sets a configuration's arguments.
pub fn arguments(spec: &mut Value, arguments: &[&str]) {
    spec["process"]["args"] = json!(arguments);
}

/// Makes a configuration that of a pod's sandbox, or of a container in it.
pub fn in_pod(spec: &mut Value, kind: &str, sandbox: &str) {
    spec["annotations"] = json!({
        "io.kubernetes.cri.container-type": kind,
        "io.kubernetes.cri.sandbox-id": sandbox,
    });
}
