//! Podman with storage of a test's own.

use std::process::Command;

use crate::Harness;

/// Podman with storage of the test's own.
pub fn podman(h: &Harness, arguments: &[&str]) -> Command {
    // A machine that may not raise limits can't have Podman's default ones.
    let config = h.path("containers.conf");
    let limits = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
    std::fs::write(&config, limits).unwrap();
    let mut command = Command::new("podman");
    command.arg("--root").arg(h.path("storage")).arg("--runroot").arg(h.path("runroot"));
    command.args([
        "--cgroup-manager",
        "cgroupfs",
        "--storage-driver",
        "vfs",
        "--events-backend",
        "file",
    ]);
    command.arg("--tmpdir").arg(h.path("podman-tmp")).arg("--runtime").arg(h.runtime());
    command.args(arguments).env("CONTAINERS_CONF", config);
    command
}
