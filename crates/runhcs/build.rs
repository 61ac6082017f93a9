//! Has the linker put the functions that run for each container next to each other
//! (docs/decisions/0014), where `make link-order` writes the script that says which; and has the
//! program begin before the C library does.

use std::env::var;
use std::path::Path;

fn main() {
    let script = Path::new(&var("CARGO_MANIFEST_DIR").unwrap()).join("first.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    let is = |name: &str, value: &str| var(name).is_ok_and(|found| found == value);
    // Only GNU's linker and LLVM's for ELF read it, and only what is optimized has a use for it.
    if is("CARGO_CFG_TARGET_OS", "linux") && is("PROFILE", "release") {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    }
    // crates/runhcs/src/sys/linux/own_program/at_start/entry.rs
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        println!("cargo::rustc-link-arg-bins=-Wl,-e,runhcs_entry");
    }
}
