//! Where this program is, and its protection from the containers it starts.

#[cfg(target_arch = "x86_64")]
mod at_start;

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result};

/// Passes the program's path on to itself, executed again: from there it can't be seen.
const VARIABLE: &str = "RUNHCS_OWN_PROGRAM";

static PATH: OnceLock<PathBuf> = OnceLock::new();

/// The verbs by which a process of this program goes into a container.
const ENTERING: [&str; 3] = ["create", "exec", "run"];

/// Has containers unable to reach this program's file (CVE-2019-5736), by executing it again if it
/// is about to enter one. To be called first of all. The static program needn't: it has replaced
/// itself when it began.
pub fn protect() -> Result<()> {
    let enters = std::env::args_os().any(|word| ENTERING.iter().any(|verb| word == *verb));
    if !enters {
        return Ok(());
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(path) = at_start::path() {
        let _ = PATH.set(path.into());
        return Ok(());
    }
    match std::env::var_os(VARIABLE) {
        Some(path) => {
            let _ = PATH.set(path.into());
            // SAFETY: this process has no other thread that could read the environment.
            unsafe { std::env::remove_var(VARIABLE) };
            // It would be known by the number of a descriptor.
            rustix::thread::set_name(c"runhcs").context("set this process's name")
        }
        None => {
            let path = std::env::current_exe().context("find this program's own path")?;
            Err(runhcs_container::execute_sealed(VARIABLE, path.as_os_str()).into())
        }
    }
}

/// This program's path on the host.
pub fn path() -> Result<PathBuf> {
    match PATH.get() {
        Some(path) => Ok(path.clone()),
        None => std::env::current_exe().context("find this program's own path"),
    }
}
