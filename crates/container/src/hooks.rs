//! Hooks: programs of the configuration that are run at points of a container's life, with the
//! container's state on their standard input (runtime specification, "POSIX-platform Hooks").

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, Spec};
use runhcs_compute::{ContainerId, Error, Result, Status};
use serde::{Deserialize, Serialize};

use crate::error::Context;

/// How much of what a failed hook wrote to its standard error is told, in bytes: the end of it.
const TOLD: u64 = 4096;

/// When a hook is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    /// The namespaces exist, nothing in them is set up. Deprecated for the next one.
    Prestart,
    /// The same, after the former.
    CreateRuntime,
    /// In the container's namespaces, before its root is changed.
    CreateContainer,
    /// In the container, before its program is executed.
    StartContainer,
    /// The program is executed.
    Poststart,
    /// The container is deleted.
    Poststop,
}

impl HookPoint {
    /// Every one, in their order.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// Its name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// What a configuration wants run at this point.
    pub fn hooks(self, spec: &Spec) -> &[Hook] {
        let Some(hooks) = spec.hooks() else { return &[] };
        let list = match self {
            #[allow(deprecated, reason = "the specification still has it")]
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }
}

/// Where hooks run, and with what unless they say it themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Surroundings<'a> {
    /// The working directory; the caller's if it isn't given.
    pub cwd: Option<&'a Path>,
    /// The environment.
    pub environment: Environment<'a>,
}

/// What variables hooks have whose `env` is absent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Environment<'a> {
    /// The caller's, as with runc and crun: hooks are programs of the host, and look for others in
    /// `PATH`.
    #[default]
    Callers,
    /// These.
    Given(&'a [CString]),
}

/// What hooks are told besides the status and the pid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookSubject {
    oci_version: String,
    id: ContainerId,
    bundle: PathBuf,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl HookSubject {
    /// A container.
    pub fn new(id: &ContainerId, spec: &Spec, bundle: &Path) -> Self {
        let annotations = spec.annotations().iter().flatten();
        Self {
            oci_version: spec.version().clone(),
            id: id.clone(),
            bundle: bundle.to_owned(),
            annotations: annotations.map(|(name, text)| (name.clone(), text.clone())).collect(),
        }
    }

    /// The container's state as the specification has it (runtime.md, "State").
    pub(crate) fn state(&self, status: Status, pid: Option<u32>) -> serde_json::Value {
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
        state
    }

    /// Runs hooks one after another. `pid` is the container's process as the hooks see it.
    ///
    /// # Errors
    /// The first that can't be run, fails, or takes longer than its timeout; those after it are
    /// not run.
    pub fn run(&self, point: HookPoint, hooks: &[Hook], status: Status, pid: u32) -> Result<()> {
        self.run_in(point, hooks, status, pid, Surroundings::default())
    }

    /// The same in other surroundings.
    pub(crate) fn run_in(
        &self,
        point: HookPoint,
        hooks: &[Hook],
        status: Status,
        pid: u32,
        surroundings: Surroundings<'_>,
    ) -> Result<()> {
        if hooks.is_empty() {
            return Ok(());
        }
        let state = self.state(status, Some(pid)).to_string();
        let mut numbered = hooks.iter().enumerate();
        numbered.try_for_each(|(number, hook)| run_one(point, number, hook, &state, surroundings))
    }

    /// Runs the hooks of a container that has ended, all of them: one that fails is logged, and
    /// its failure keeps nothing from being freed (runtime specification, "Lifecycle", step 13).
    pub fn run_poststop(&self, hooks: &[Hook]) {
        if hooks.is_empty() {
            return;
        }
        let state = self.state(Status::Stopped, None).to_string();
        for (number, hook) in hooks.iter().enumerate() {
            let none = Surroundings::default();
            if let Err(error) = run_one(HookPoint::Poststop, number, hook, &state, none) {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(container = %self.id, cause, "{error}");
            }
        }
    }
}

fn run_one(
    point: HookPoint,
    number: usize,
    hook: &Hook,
    state: &str,
    surroundings: Surroundings<'_>,
) -> Result<()> {
    // The words are runc's, by which its callers know that a hook has failed.
    let what =
        || format!("error running {} hook #{number}: {}", point.name(), hook.path().display());
    let mut command = Command::new(hook.path());
    let mut arguments = hook.args().iter().flatten();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    let variables: Option<Vec<&str>> = match (hook.env(), surroundings.environment) {
        (Some(own), _) => Some(own.iter().map(String::as_str).collect()),
        (None, Environment::Given(given)) => {
            Some(given.iter().filter_map(|variable| variable.to_str().ok()).collect())
        }
        (None, Environment::Callers) => None,
    };
    if let Some(variables) = variables {
        command.env_clear();
        for variable in variables {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            command.env(name, value);
        }
    }
    if let Some(cwd) = surroundings.cwd {
        command.current_dir(cwd);
    }
    // Files rather than pipes: neither a hook that doesn't read nor one that writes much blocks.
    let mut input = memory_file(c"hook-state").context(what)?;
    input.write_all(state.as_bytes()).context(what)?;
    input.seek(SeekFrom::Start(0)).context(what)?;
    let mut errors = memory_file(c"hook-errors").context(what)?;
    command.stdin(input).stdout(std::process::Stdio::null());
    command.stderr(errors.try_clone().context(what)?);
    let mut child = command.spawn().context(what)?;
    drop(command);
    let limit = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    if let Some(seconds) = limit.filter(|seconds| *seconds > 0) {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        if !ends_before(child.id(), deadline).context(what)? {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::failed(what(), format!("it did not end within {seconds} s")));
        }
    }
    let status = child.wait().context(what)?;
    if status.success() {
        return Ok(());
    }
    let said = end_of(&mut errors).context(what)?;
    Err(Error::failed(what(), format!("{status}: {}", said.trim())))
}

fn memory_file(name: &std::ffi::CStr) -> std::io::Result<File> {
    Ok(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

fn end_of(file: &mut File) -> std::io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TOLD)))?;
    let mut bytes = Vec::new();
    file.take(TOLD).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn ends_before(pid: u32, deadline: Instant) -> std::io::Result<bool> {
    let pidfd = crate::proc::pidfd(pid)?;
    crate::proc::wait_readable(&pidfd, Some(deadline))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> HookSubject {
        let mut spec = Spec::default();
        spec.set_annotations(Some([("a".to_owned(), "b".to_owned())].into()));
        HookSubject::new(&"box".parse().unwrap(), &spec, Path::new("/bundle"))
    }

    fn shell(script: &str, timeout: Option<i64>) -> Hook {
        let mut hook = Hook::default();
        hook.set_path("/bin/sh".into());
        hook.set_args(Some(["sh", "-c", script].map(str::to_owned).to_vec()));
        hook.set_env(Some(vec!["PATH=/usr/bin:/bin".to_owned()]));
        hook.set_timeout(timeout);
        hook
    }

    fn run(hooks: &[Hook]) -> Result<()> {
        subject().run(HookPoint::CreateRuntime, hooks, Status::Creating, 7)
    }

    fn failure(hooks: &[Hook]) -> String {
        let error = run(hooks).unwrap_err();
        format!("{error}: {}", std::error::Error::source(&error).unwrap())
    }

    #[test]
    fn a_hook_reads_the_state() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        run(&[shell(&format!("cat > {}", path.display()), None)]).unwrap();
        let state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for (field, value) in [("id", "box"), ("status", "creating"), ("bundle", "/bundle")] {
            assert_eq!(state[field], value, "{state}");
        }
        assert_eq!(state["pid"], 7);
        assert_eq!(state["annotations"]["a"], "b");
    }

    #[test]
    fn the_first_failure_ends_it_and_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("late");
        let late = shell(&format!("touch {}", path.display()), None);
        let error = failure(&[shell("echo broken >&2; exit 3", None), late]);
        for part in ["createRuntime", "/bin/sh", "exit status: 3", "broken"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!path.exists());
    }

    #[test]
    fn a_hook_may_leave_its_state_unread_and_say_much() {
        let script = "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 1";
        let error = failure(&[shell(script, Some(20))]);
        assert!(error.contains("xxx") && error.contains("the end"), "{error}");
        assert!(error.len() < 5000, "{}", error.len());
    }

    #[test]
    fn a_hook_without_an_environment_has_that_of_its_surroundings() {
        let directory = tempfile::tempdir().unwrap();
        let mut hook = shell("echo \"$WHO\" > here", None);
        hook.set_env(None);
        let environment = [CString::new("WHO=me").unwrap()];
        let environment = Environment::Given(&environment);
        let surroundings = Surroundings { cwd: Some(directory.path()), environment };
        let point = HookPoint::StartContainer;
        subject().run_in(point, &[hook], Status::Created, 7, surroundings).unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("here")).unwrap(), "me\n");
    }

    #[test]
    fn a_hook_has_its_time() {
        let error = failure(&[shell("exec sleep 100", Some(1))]);
        assert!(error.contains("within 1 s"), "{error}");
    }

    #[test]
    fn poststop_hooks_are_all_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("late");
        let late = shell(&format!("touch {}", path.display()), None);
        subject().run_poststop(&[shell("exit 1", None), late]);
        assert!(path.exists());
    }
}
