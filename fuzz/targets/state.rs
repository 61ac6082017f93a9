//! The state of a container as somebody may have left it: its record, its resources, and what is
//! kept of network namespaces.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use runhcs_container::Resources;
use runhcs_state::{RECORD_VERSION, Record, Store};
use tempfile::TempDir;

struct World {
    _directory: TempDir,
    store: Store,
    entry: PathBuf,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&directory.path().join("state")).expect("a store");
    let id: runhcs_compute::ContainerId = "fuzz".parse().expect("a valid id");
    let record = Record {
        version: RECORD_VERSION,
        id,
        unique_id: String::new(),
        owner: String::new(),
        oci_version: "1.2.0".to_owned(),
        bundle: PathBuf::from("/"),
        rootfs: PathBuf::from("/"),
        created: String::new(),
        annotations: Default::default(),
        sandbox_id: None,
        vm: None,
        netns: None,
        terminal: false,
    };
    let entry = store.claim(&record).expect("an entry").dir().to_owned();
    World { _directory: directory, store, entry }
});

fuzz_target!(|bytes: &[u8]| {
    let world = &*WORLD;
    for value in ["record.json", "resources.json"] {
        std::fs::write(world.entry.join(value), bytes).expect("a value");
    }
    let listed = world.store.list().expect("the store can be listed");
    assert_eq!(listed.len(), 1);
    let entry = world.store.entry(&"fuzz".parse().expect("a valid id")).expect("an entry");
    if let Ok(record) = entry.record() {
        let json = serde_json::to_vec(&record).expect("a record can be stored");
        assert_eq!(serde_json::from_slice::<Record>(&json).expect("and read"), record);
    }
    if let Ok(Some(resources)) = entry.get::<Resources>("resources") {
        let json = serde_json::to_vec(&resources).expect("resources can be stored");
        assert_eq!(serde_json::from_slice::<Resources>(&json).expect("and read"), resources);
    }
});
