//! What a container tells the service manager that has started the runtime (sd_notify(3)): a socket
//! of the container's own, mounted into it, whose messages are passed on to the manager's. As with
//! runc, it is there if `NOTIFY_SOCKET` is set in the environment of both `create` and `start`, or
//! of `run`.
//!
//! Of what a container says, what could make the manager look at or keep something else is not
//! passed on: pids, which are of its own namespace, and descriptors.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{MountBuilder, Process, Spec};
use runhcs_state::ProcessHandle;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::process;

/// The variable that names a socket, in the environment of whoever is to notify.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// The directory in a container's entry, and the socket in it.
const DIRECTORY: &str = "notify";
const SOCKET: &str = "notify.sock";
/// Where the directory is in the container.
const IN_CONTAINER: &str = "/run/notify";
/// The largest message, in bytes. What is more is cut off by the kernel.
const LARGEST: usize = 64 << 10;
/// What is passed on. The others are about pids and descriptors, or for the manager's own programs.
const PASSED_ON: [&str; 9] = [
    "READY",
    "RELOADING",
    "STOPPING",
    "STATUS",
    "ERRNO",
    "WATCHDOG",
    "WATCHDOG_USEC",
    "EXTEND_TIMEOUT_USEC",
    "MONOTONIC_USEC",
];

/// The configuration with the socket's directory mounted, which is made in the container's entry, if
/// there is somebody to notify.
pub fn arrange<'a>(spec: &'a Spec, entry: &Path) -> Result<Cow<'a, Spec>> {
    if manager()?.is_none() {
        return Ok(Cow::Borrowed(spec));
    }
    let directory = entry.join(DIRECTORY);
    let what = || format!("make {}", directory.display());
    std::fs::create_dir(&directory).with_context(what)?;
    // Its own place keeps others out; in the container anybody may notify.
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).with_context(what)?;
    let mut spec = spec.clone();
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
    let mount = MountBuilder::default()
        .destination(IN_CONTAINER)
        .typ("bind")
        .source(directory)
        .options(options)
        .build()
        .context("describe the mount of the notify socket")?;
    spec.mounts_mut().get_or_insert_default().push(mount);
    if let Some(process) = spec.process_mut() {
        set_variable(process);
    }
    Ok(Cow::Owned(spec))
}

fn set_variable(process: &mut Process) {
    let environment = process.env_mut().get_or_insert_default();
    environment.retain(|variable| !variable.starts_with(&format!("{VARIABLE}=")));
    environment.push(format!("{VARIABLE}={IN_CONTAINER}/{SOCKET}"));
}

/// Says that nothing will come from a container in a VM, whose sockets are the guest's.
pub fn warn_of_vm() {
    if std::env::var_os(VARIABLE).is_some_and(|name| !name.is_empty()) {
        tracing::warn!("{VARIABLE} is set, but a container in a VM can't notify of anything");
    }
}

/// A container's socket, and the manager's.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    manager: SocketAddr,
}

impl NotifySocket {
    /// Opens the socket of the container with this entry, before it is started, if `create` has
    /// arranged for one and there is somebody to notify.
    pub fn open(entry: &Path) -> Result<Option<Self>> {
        let directory = entry.join(DIRECTORY);
        let Some(manager) = manager()?.filter(|_| directory.exists()) else { return Ok(None) };
        let path = directory.join(SOCKET);
        let what = || format!("make the notify socket {}", path.display());
        let socket = UnixDatagram::bind(&path).with_context(what)?;
        socket.set_nonblocking(true).with_context(what)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).with_context(what)?;
        Ok(Some(Self { socket, manager }))
    }

    /// Whether the environment names somebody to notify.
    pub fn is_asked_for() -> bool {
        std::env::var_os(VARIABLE).is_some()
    }

    /// Passes on what there is.
    pub fn pass_on(&self) -> Result<()> {
        while let Some(message) = self.receive()? {
            let lines: Vec<&str> = message.lines().filter(|line| is_passed_on(line)).collect();
            if !lines.is_empty() {
                self.send(&lines.join("\n"))?;
            }
        }
        Ok(())
    }

    /// Waits until the container is ready, and tells the manager so and which process it is; or
    /// until that has ended. This process, which the manager knows, is about to end.
    pub fn wait_until_ready(&self, main: &ProcessHandle) -> Result<()> {
        let Some(process) = process::open(*main)? else { return Ok(()) };
        loop {
            let mut fds =
                [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for the container to be ready"),
            }
            let ended = !fds[1].revents().is_empty();
            while let Some(message) = self.receive()? {
                if message.lines().any(|line| line == "READY=1") {
                    return self.send(&format!("MAINPID={}\nREADY=1", main.pid));
                }
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// The next message. Descriptors that come with it are closed by the kernel, which ends a
    /// sender's wait for its message to be read (`BARRIER=1`).
    fn receive(&self) -> Result<Option<String>> {
        let what = "receive what the container notifies of";
        let mut message = match recv(&self.socket, &mut [0; 0], RecvFlags::PEEK | RecvFlags::TRUNC)
        {
            Ok((_, size)) => vec![0; size.min(LARGEST)],
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error).context(what),
        };
        recv(&self.socket, &mut message, RecvFlags::empty()).context(what)?;
        Ok(Some(String::from_utf8_lossy(&message).into_owned()))
    }

    fn send(&self, message: &str) -> Result<()> {
        // From a socket of its own: from the container's, an answer could come.
        let sent = UnixDatagram::unbound()
            .and_then(|socket| socket.send_to_addr(message.as_bytes(), &self.manager));
        sent.map(drop).with_context(|| format!("notify the service manager ({VARIABLE})"))
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_passed_on(line: &str) -> bool {
    line.split_once('=').is_some_and(|(name, _)| PASSED_ON.contains(&name))
}

/// Who is to be notified.
fn manager() -> Result<Option<SocketAddr>> {
    let Some(name) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let bytes = name.as_encoded_bytes();
    let address = match bytes.first() {
        Some(b'/') => SocketAddr::from_pathname(&name),
        Some(b'@') => SocketAddr::from_abstract_name(&bytes[1..]),
        _ => bail!("{VARIABLE}={name:?} in the environment is neither a path nor an abstract name"),
    };
    Ok(Some(address.with_context(|| format!("{VARIABLE}={name:?} in the environment"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_the_container_alone_is_passed_on() {
        for line in ["READY=1", "STATUS=a=b", "WATCHDOG=1", "WATCHDOG_USEC=5"] {
            assert!(is_passed_on(line), "{line}");
        }
        for line in ["MAINPID=1", "FDSTORE=1", "FDNAME=a", "NOTIFYACCESS=all", "READY", "", "=1"] {
            assert!(!is_passed_on(line), "{line}");
        }
    }

    #[test]
    fn the_variable_is_there_once() {
        let mut spec = runhcs_spec::default_spec();
        let process = spec.process_mut().as_mut().unwrap();
        process.set_env(Some(vec!["A=1".into(), "NOTIFY_SOCKET=/host".into()]));
        set_variable(process);
        let environment = process.env().clone().unwrap();
        assert_eq!(environment, ["A=1", "NOTIFY_SOCKET=/run/notify/notify.sock"]);
    }
}
