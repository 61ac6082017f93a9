//! A host of a test's own: a network namespace in which bridges may be set up, and a mount
//! namespace in which `/run` and what is known of networks are empty.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use crate::{Harness, Netns};

/// An empty directory with the name of a controller that has no hierarchy passes for one with
/// Podman, which then can't remove its groups. Whatever once mounted a hierarchy there left it.
const SET_UP: &str = "if [ $(stat -f -c %T /sys/fs/cgroup) = tmpfs ]; then \
    for name in $(cut -f 1 /proc/cgroups); do \
        mountpoint -q /sys/fs/cgroup/$name || rmdir /sys/fs/cgroup/$name 2>/dev/null; \
    done; fi; \
    mount -t tmpfs run /run && mkdir -p /var/lib/cni && \
    mount -t tmpfs cni /var/lib/cni && echo ready && exec cat";

/// The host, while this exists.
#[derive(Debug)]
pub struct Host {
    /// What keeps its mount namespace.
    keeper: Child,
    network: Netns,
}

impl Host {
    /// Makes one.
    pub fn new(harness: &Harness) -> Self {
        let network = Netns::new(harness, "host-network");
        let mut command = network.command(&["unshare", "--mount", "sh", "-c", SET_UP]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().unwrap();
        let mut ready = [0; 6];
        keeper.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        Self { keeper, network }
    }

    /// The same command on this host, with the test's token.
    pub fn command(&self, harness: &Harness, inner: &Command) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.keeper.id()));
        command.arg(format!("--net={}", self.network.path().display()));
        command.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap());
        }
        command.env("RUNHCS_E2E", &harness.token).env("TMPDIR", harness.path("tmp"));
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
