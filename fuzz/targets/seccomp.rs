//! `linux.seccomp`, from its bytes to a filter.
#![no_main]

mod support;

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(seccomp) = serde_json::from_slice(bytes) else { return };
    let mut spec = runhcs_spec::default_spec();
    spec.linux_mut().as_mut().expect("a part for Linux").set_seccomp(Some(seccomp));
    spec.process_mut().as_mut().expect("a process").set_terminal(Some(false));
    support::plan(&spec, Path::new("/"));
});
