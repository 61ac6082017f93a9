//! Labels of Linux security modules: the AppArmor profile and the SELinux context that a program is
//! executed with, and the SELinux context of what is mounted for it.

use std::os::fd::BorrowedFd;
use std::path::Path;

use oci_spec::runtime::{Linux, Process};
use runhcs_compute::Result;
use rustix::fs::{Mode, OFlags, XattrFlags};

use crate::error::{Context, invalid};
use crate::proc;

/// Where SELinux has its control files when it is enabled, and its magic number (linux/magic.h).
const SELINUX: &str = "/sys/fs/selinux";
const SELINUX_MAGIC: i64 = 0xf97c_ff8c;

/// The attribute of a file that holds its context (linux/xattr.h, `XATTR_NAME_SELINUX`).
const SELINUX_ATTRIBUTE: &str = "security.selinux";

/// Where AppArmor says whether it is enabled.
const APPARMOR: &str = "/sys/module/apparmor/parameters/enabled";

/// The profile that stands for none.
const UNCONFINED: &str = "unconfined";

/// A process's labels; none of them costs a system call unless it is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels<'a> {
    apparmor: Option<&'a str>,
    selinux: Option<&'a str>,
}

impl<'a> Labels<'a> {
    /// Reads `process.apparmorProfile` and `process.selinuxLabel`.
    ///
    /// # Errors
    /// The running kernel doesn't have the security module.
    pub(crate) fn new(process: &'a Process) -> Result<Self> {
        Self::for_kernel(process, apparmor_is_enabled, selinux_is_enabled)
    }

    fn for_kernel(
        process: &'a Process,
        has_apparmor: impl Fn() -> bool,
        has_selinux: impl Fn() -> bool,
    ) -> Result<Self> {
        let given = |label: &'a Option<String>| label.as_deref().filter(|label| !label.is_empty());
        let mut apparmor = given(process.apparmor_profile());
        let selinux = given(process.selinux_label());
        if let Some(profile) = apparmor.filter(|_| !has_apparmor()) {
            if profile != UNCONFINED {
                return Err(missing("process.apparmorProfile", profile, "AppArmor"));
            }
            apparmor = None;
        }
        if let Some(label) = selinux.filter(|_| !has_selinux()) {
            return Err(missing("process.selinuxLabel", label, "SELinux"));
        }
        Ok(Self { apparmor, selinux })
    }

    /// Has the next program that the calling process executes get them.
    pub(crate) fn apply(&self) -> Result<()> {
        if let Some(profile) = self.apparmor {
            let command = format!("exec {profile}");
            // The directory is there since Linux 5.1, which lets several modules be active.
            let own = proc::write(Path::new("self/attr/apparmor/exec"), &command);
            own.or_else(|_| proc::write(Path::new("self/attr/exec"), &command))
                .context(|| "process.apparmorProfile".into())?;
        }
        if let Some(label) = self.selinux {
            proc::write(Path::new("self/attr/exec"), label)
                .context(|| "process.selinuxLabel".into())?;
        }
        Ok(())
    }

    /// Makes a keyring, or whatever keys `make` makes, with the process's SELinux context.
    pub(crate) fn with_keys(&self, make: impl FnOnce() -> Result<()>) -> Result<()> {
        let Some(label) = self.selinux else { return make() };
        let set = |label: &str| {
            proc::write(Path::new("self/attr/keycreate"), label)
                .context(|| "process.selinuxLabel".into())
        };
        set(label)?;
        make()?;
        // An empty write has the kernel choose again (libselinux, setkeycreatecon(3)).
        set("\n")
    }
}

/// Reads `linux.mountLabel`.
///
/// # Errors
/// The running kernel doesn't have SELinux.
pub(crate) fn of_mounts(linux: Option<&Linux>) -> Result<Option<&str>> {
    let label = linux.and_then(|linux| linux.mount_label().as_deref());
    match label.filter(|label| !label.is_empty()) {
        Some(label) if !selinux_is_enabled() => Err(missing("linux.mountLabel", label, "SELinux")),
        label => Ok(label),
    }
}

/// How the files of a new file system get an SELinux context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakesContext {
    /// By the option `context=`, which holds for all of them.
    AsOption,
    /// By an attribute of its root: the kernel takes no such option (selinux_sb_kern_mount).
    OnRoot,
    /// From the policy: they are the kernel's own.
    FromPolicy,
}

impl TakesContext {
    pub(crate) fn of(file_system: &str) -> Self {
        match file_system {
            "proc" | "sysfs" | "cgroup" | "cgroup2" => Self::FromPolicy,
            "mqueue" => Self::OnRoot,
            _ => Self::AsOption,
        }
    }
}

/// `linux.mountLabel` as an option of a file system.
pub(crate) fn context_option(label: &str) -> String {
    format!("context={label}")
}

/// Gives the root directory of a mount `linux.mountLabel`.
pub(crate) fn set_on_root(mount: BorrowedFd<'_>, label: &str) -> Result<()> {
    let what = || format!("linux.mountLabel: set {label:?}");
    // The descriptor of a mount is good for paths only.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(mount, ".", flags, Mode::empty()).context(what)?;
    rustix::fs::fsetxattr(root, SELINUX_ATTRIBUTE, label.as_bytes(), XattrFlags::empty())
        .context(what)
}

fn missing(field: &str, label: &str, module: &str) -> runhcs_compute::Error {
    let why = format!("is {label:?}, but {module} is not enabled in the running kernel");
    invalid(field, why)
}

fn apparmor_is_enabled() -> bool {
    std::fs::read_to_string(APPARMOR).is_ok_and(|text| text.starts_with('Y'))
}

fn selinux_is_enabled() -> bool {
    rustix::fs::statfs(SELINUX).is_ok_and(|stat| stat.f_type == SELINUX_MAGIC)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn process(json: &str) -> Process {
        let text = format!(r#"{{"user":{{"uid":0,"gid":0}},"cwd":"/","args":["x"]{json}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_kernel_without_the_module_is_no_reason_to_go_unconfined() {
        for (json, field) in [
            (r#","apparmorProfile":"p""#, "process.apparmorProfile"),
            (r#","selinuxLabel":"a:b:c:s0""#, "process.selinuxLabel"),
        ] {
            let process = process(json);
            let error = Labels::for_kernel(&process, || false, || false).unwrap_err();
            assert_eq!(error.to_string(), field);
            assert!(std::error::Error::source(&error).unwrap().to_string().contains("not enabled"));
            assert_ne!(Labels::for_kernel(&process, || true, || true).unwrap(), Labels::default());
        }
    }

    #[test]
    fn nothing_is_asked_of_a_kernel_for_no_label() {
        for json in ["", r#","apparmorProfile":"","selinuxLabel":"""#] {
            let process = process(json);
            let labels = Labels::for_kernel(&process, || panic!(), || panic!()).unwrap();
            assert_eq!(labels, Labels::default());
            // Writes nothing, for there is nothing to be written.
            labels.apply().unwrap();
        }
    }

    #[test]
    fn a_root_gets_its_context_through_a_descriptor_for_paths() {
        // The kernel stores the attribute also where no module gives it a meaning.
        let directory = tempfile::tempdir().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
        set_on_root(root.as_fd(), "a:b:c:s0:c1,c2").unwrap();
        let mut value = [0; 64];
        let length = rustix::fs::getxattr(directory.path(), SELINUX_ATTRIBUTE, &mut value).unwrap();
        assert_eq!(&value[..length], b"a:b:c:s0:c1,c2");
    }

    #[test]
    fn unconfined_needs_no_apparmor() {
        let process = process(r#","apparmorProfile":"unconfined""#);
        let labels = |has| Labels::for_kernel(&process, move || has, || false).unwrap();
        assert_eq!(labels(false).apparmor, None);
        assert_eq!(labels(true).apparmor, Some("unconfined"));
    }
}
