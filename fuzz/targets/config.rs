//! `config.json`, from its bytes to the plan of a container and the options of a VM.
#![no_main]

mod support;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::Spec;
use runhcs_spec::{Bundle, VmDefaults, VmOptions, requested_isolation, sandbox_role};
use tempfile::TempDir;

static BUNDLE: LazyLock<TempDir> = LazyLock::new(|| {
    let bundle = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(bundle.path().join("rootfs")).expect("a root file system");
    bundle
});

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(BUNDLE.path().join("config.json"), bytes).expect("a configuration");
    let Ok(bundle) = Bundle::load(BUNDLE.path()) else { return };
    let json = serde_json::to_vec(&bundle.spec).expect("a configuration can be stored");
    let read: Spec = serde_json::from_slice(&json).expect("a stored one can be read");
    assert_eq!(read, bundle.spec);
    let _ = sandbox_role(&bundle.spec.annotations().clone().unwrap_or_default());
    let _ = requested_isolation(&bundle.spec, None);
    let _ = VmOptions::from_spec(&bundle.spec, bundle.hardware.as_ref(), &VmDefaults::default());
    support::plan(&bundle.spec, &bundle.path);
});
