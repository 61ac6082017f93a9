//! The program a container's process becomes: looked up and executed inside the container.

use std::ffi::CString;

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Process;
use runhcs_compute::{Error, Result};
use rustix::fs::{Access, AtFlags, CWD, OFlags};
use rustix::io::Errno;

use crate::error::{Context, invalid};
use crate::rootfs::resolve::Root;
use crate::{InheritedFds, passwd};

/// Where programs are looked for if the environment has no `PATH` (as runc and crun have it).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command line and an environment as execve(2) takes them.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    search: String,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    cwd: PathBuf,
    /// Whether the environment says where the user's home is.
    has_home: bool,
}

/// The variables of an environment, each once: of several values the last counts. An empty `HOME`
/// is as good as none (both as runc has them).
fn variables(listed: &[String]) -> Vec<&String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<&String> =
        listed.iter().rev().filter(|variable| seen.insert(name(variable))).collect();
    kept.retain(|variable| variable.as_str() != "HOME=");
    kept.reverse();
    kept
}

impl Program {
    pub(crate) fn new(process: &Process, inherited: InheritedFds) -> Result<Self> {
        let arguments = process.args().as_deref().unwrap_or_default();
        let name = arguments.first().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| invalid("process.args", "is empty"))?.clone();
        let string = |field: &str, text: &str| CString::new(text).context(|| field.to_owned());
        let strings = |field: &str, list: &[String]| -> Result<Vec<CString>> {
            list.iter()
                .enumerate()
                .map(|(i, text)| string(&format!("{field}[{i}]"), text))
                .collect()
        };
        let listed = variables(process.env().as_deref().unwrap_or_default());
        let environment = listed.iter().map(|variable| string("process.env", variable));
        let mut environment: Vec<CString> = environment.collect::<Result<_>>()?;
        let has_home = listed.iter().any(|variable| variable.starts_with("HOME="));
        if inherited.listen > 0 {
            // systemd's socket activation protocol (sd_listen_fds(3)); the process is pid 1.
            environment.push(string("LISTEN_FDS", &format!("LISTEN_FDS={}", inherited.listen))?);
            environment.push(c"LISTEN_PID=1".to_owned());
        }
        let search = listed.iter().find_map(|variable| variable.strip_prefix("PATH="));
        Ok(Self {
            search: search.unwrap_or(DEFAULT_PATH).to_owned(),
            arguments: strings("process.args", arguments)?,
            environment,
            cwd: process.cwd().clone(),
            has_home,
            name,
        })
    }

    /// Sets `HOME` from the container's `/etc/passwd` unless it is set; the caller is in the
    /// container's root. As with runc, who isn't listed is at home in `/`.
    pub(crate) fn look_home_up(&mut self, uid: u32) -> Result<()> {
        if self.has_home {
            return Ok(());
        }
        let home = passwd::home(uid).unwrap_or_else(|| "/".to_owned());
        let entry = CString::new(format!("HOME={home}")).context(|| format!("HOME={home:?}"))?;
        self.environment.push(entry);
        self.has_home = true;
        Ok(())
    }

    /// The environment, as far as it is known now.
    pub(crate) fn environment(&self) -> &[CString] {
        &self.environment
    }

    /// Enters the working directory, which has to be there; the caller is in the container's root.
    pub(crate) fn enter_cwd(&self) -> Result<()> {
        let what = || format!("enter the working directory {}", self.cwd.display());
        let root = Root::open(Path::new("/"))?;
        let directory = match root.open_at(&self.cwd, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::LOOP) => {
                let why = "it leads through a link of procfs to what a process has open, or through \
                           too many links";
                return Err(Error::failed(what(), why));
            }
            found => found.context(what)?,
        };
        rustix::process::fchdir(&directory).context(what)?;
        // A directory outside the root, reached through a leaked descriptor, has no path in here
        // (CVE-2024-21626).
        let reached = rustix::process::getcwd(Vec::new()).context(what)?;
        if reached.to_bytes().first() != Some(&b'/') {
            return Err(Error::failed(what(), "it is outside the container"));
        }
        Ok(())
    }

    /// Finds the program, so that `create` can say that there is none. The words are those that
    /// Podman and Docker know from runc.
    pub(crate) fn find(&self) -> Result<CString> {
        let what = || format!("exec: {:?}", self.name);
        let check = |path: &Path| -> rustix::io::Result<()> {
            match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
                // The call is newer than many seccomp filters: execve(2) will tell.
                Err(Errno::PERM | Errno::NOSYS) => drop(rustix::fs::stat(path)?),
                other => other?,
            }
            let directory = rustix::fs::stat(path)
                .is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_dir());
            if directory { Err(Errno::ACCESS) } else { Ok(()) }
        };
        let found = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).context(what);
        if self.name.contains('/') {
            return match check(Path::new(&self.name)) {
                Ok(()) => found(Path::new(&self.name)),
                Err(Errno::NOENT) => Err(Error::failed(
                    what(),
                    format!("stat {}: no such file or directory", self.name),
                )),
                Err(Errno::ACCESS) => Err(Error::failed(what(), "permission denied")),
                Err(error) => Err(error).context(what),
            };
        }
        let mut denied = false;
        for directory in self.search.split(':') {
            let directory = if directory.is_empty() { "." } else { directory };
            let path = Path::new(directory).join(&self.name);
            match check(&path) {
                Ok(()) => return found(&path),
                Err(Errno::ACCESS) => denied = true,
                Err(_) => {}
            }
        }
        let why = if denied { "permission denied" } else { "executable file not found in $PATH" };
        Err(Error::failed(what(), why))
    }

    /// Becomes the program; returns only if that fails.
    pub(crate) fn execute(&self, path: &CString) -> Error {
        let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
            list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        // SAFETY: both lists end with a null pointer and point to C strings that `self` holds.
        unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        // As runc words it, whose callers look for the cause at the end.
        let error = std::io::Error::last_os_error();
        let text = error.to_string().to_lowercase();
        let text = text.split(" (os error").next().unwrap_or_default().to_owned();
        Error::failed(format!("exec {}", path.to_string_lossy()), text)
    }
}

/// Has every signal do what it does by default, and none blocked. What is ignored or blocked stays
/// so across execve(2): what the runtime itself ignores, and what its caller does (nohup(1), or a
/// shell that runs it in the background), which is none of the container's business.
pub(crate) fn forget_signals() {
    const SIGNALS: libc::c_int = 64;
    // `struct sigaction` as the kernel has it: the default action, and no flags, in every field.
    let default = [0u64; 4];
    for number in 1..=SIGNALS {
        // Not by the library, which keeps some for itself and doesn't let them be changed.
        // SAFETY: the call reads the structure, which is 32 bytes at most. The default action has
        // no handler that could be called. SIGKILL and SIGSTOP are refused, which changes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: a signal set has no invalid values, and the call reads a whole one.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Marks every descriptor after stdio and the preserved ones to be closed when a program is
/// executed, whoever left it open.
pub(crate) fn close_on_exec(inherited: InheritedFds) -> Result<()> {
    // SAFETY: changes flags of descriptors only; they stay open and owned as they are.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            inherited.count().saturating_add(3),
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error()).context(|| "mark descriptors close-on-exec".into())
}

/// Closes every descriptor but stdio, the preserved ones and those in `keep`: a container's init
/// may wait for `start` for a long time, and would hold open whatever its creator had open (the
/// ends of other containers' pipes among them).
pub(crate) fn close_all_but(mut keep: Vec<RawFd>, inherited: InheritedFds) {
    keep.sort_unstable();
    let own = inherited.count().saturating_add(3);
    let mut first = own;
    for fd in keep.into_iter().map(|fd| fd as u32).filter(|fd| *fd >= own) {
        close_range(first, fd.saturating_sub(1));
        first = fd + 1;
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    if first <= last {
        // SAFETY: this process is a fresh copy of its creator and goes on with descriptors of
        // `keep` only; the creator's objects that own the others are never used or dropped here.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// Gives the process a session keyring of its own; the caller's holds the caller's keys
/// (keyctl(2), session-keyring(7)).
pub(crate) fn new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name a new anonymous keyring is made; no memory is accessed.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, none) };
    let error = std::io::Error::last_os_error();
    // A kernel without keyrings has none to leak.
    if result < 0 && error.raw_os_error() != Some(libc::ENOSYS) {
        return Err(error).context(|| "make a session keyring".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variable_is_there_once() {
        let listed = ["HOME=/a", "ONE=1", "TWO=x=y", "ONE=2", "HOME="].map(str::to_owned);
        assert_eq!(variables(&listed), ["TWO=x=y", "ONE=2"]);
        let listed = ["HOME=", "HOME=/b"].map(str::to_owned);
        assert_eq!(variables(&listed), ["HOME=/b"]);
    }
}
