//! Hooks: programs of the configuration that are run at points of a container's life, with the
//! container's state on their standard input (runtime specification, "POSIX-platform Hooks").

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::Hook;
use runhcs_compute::{ContainerId, Error, Result, Status};
use serde::{Deserialize, Serialize};

use crate::error::Context;

/// What hooks are told besides the status and the pid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HookSubject {
    pub oci_version: String,
    pub id: ContainerId,
    pub bundle: std::path::PathBuf,
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
}

impl HookSubject {
    fn state(&self, status: Status, pid: Option<u32>) -> String {
        let mut state = serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
            "annotations": self.annotations,
        });
        if let Some(pid) = pid {
            state["pid"] = pid.into();
        }
        state.to_string()
    }

    /// Runs hooks one after another; the first that fails ends it.
    pub(crate) fn run(
        &self,
        point: &str,
        hooks: Option<&Vec<Hook>>,
        status: Status,
        pid: Option<u32>,
    ) -> Result<()> {
        let Some(hooks) = hooks.filter(|hooks| !hooks.is_empty()) else { return Ok(()) };
        let state = self.state(status, pid);
        for hook in hooks {
            run_one(point, hook, &state)?;
        }
        Ok(())
    }
}

fn run_one(point: &str, hook: &Hook, state: &str) -> Result<()> {
    let what = || format!("run the {point} hook {}", hook.path().display());
    let mut command = Command::new(hook.path());
    let mut arguments = hook.args().iter().flatten();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env_clear();
    for variable in hook.env().iter().flatten() {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        command.env(name, value);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context(what)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook needn't read its state.
        let _ = stdin.write_all(state.as_bytes());
    }
    let deadline = hook
        .timeout()
        .filter(|seconds| *seconds > 0)
        .map(|seconds| Instant::now() + Duration::from_secs(seconds as u64));
    if let Some(deadline) = deadline
        && !ends_before(child.id(), deadline).context(what)?
    {
        let _ = child.kill();
        let _ = child.wait();
        let seconds = hook.timeout().unwrap_or_default();
        return Err(Error::failed(what(), format!("it did not end within {seconds} s")));
    }
    let output = child.wait_with_output().context(what)?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Error::failed(what(), format!("{}: {}", output.status, stderr.trim())))
}

fn ends_before(pid: u32, deadline: Instant) -> std::io::Result<bool> {
    let pidfd = crate::proc::pidfd(pid)?;
    crate::proc::wait_readable(&pidfd, Some(deadline))
}
