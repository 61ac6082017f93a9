//! What the tests of the store share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use runhcs_compute::ContainerId;
use runhcs_state::{Record, Store};
use tempfile::TempDir;

/// A store in a directory of its own that goes with the test.
pub fn store() -> (TempDir, Store) {
    let temp = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(&root(&temp)).expect("open the store");
    (temp, store)
}

/// Where [`store`] keeps its entries.
pub fn root(temp: &TempDir) -> PathBuf {
    temp.path().join("run/runhcs")
}

pub fn id(text: &str) -> ContainerId {
    text.parse().expect("a valid id")
}

/// A record with every field filled.
pub fn record(text: &str) -> Record {
    Record {
        version: runhcs_state::RECORD_VERSION,
        id: id(text),
        unique_id: "5e1f3c4e-0000-4000-8000-000000000001".into(),
        owner: "runhcs".into(),
        oci_version: "1.2.0".into(),
        bundle: "/bundle".into(),
        rootfs: "/bundle/rootfs".into(),
        created: "2026-11-23T16:00:00Z".into(),
        annotations: BTreeMap::from([("a".into(), "b".into())]),
        sandbox_id: None,
        vm: None,
        netns: None,
        terminal: false,
    }
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// An error with all its causes.
pub fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
