//! Docker's and containerd's daemons, each on a host of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::{Bundle, Harness, Host, Outcome, eventually};

/// A running daemon. Dropping it ends it.
#[derive(Debug)]
pub struct Daemon<'a> {
    harness: &'a Harness,
    child: Child,
    /// Its client, and how it reaches the daemon.
    client: [String; 3],
    // Ends after the daemon.
    host: Host,
}

impl<'a> Daemon<'a> {
    /// Docker's, whose containers are the test's kind, with an image called `box`.
    pub fn docker(harness: &'a Harness) -> Self {
        let socket = path(harness, "docker.sock");
        let line = [
            "dockerd",
            "--log-level",
            "warn",
            "--data-root",
            &path(harness, "docker"),
            "--exec-root",
            &path(harness, "docker-exec"),
            "--pidfile",
            &path(harness, "docker.pid"),
            "--host",
            &format!("unix://{socket}"),
            "--storage-driver",
            "vfs",
            "--exec-opt",
            "native.cgroupdriver=cgroupfs",
            "--cgroup-parent",
            &format!("/runhcs-e2e/{}", harness.token),
            "--add-runtime",
            &format!("box={}", harness.runtime().display()),
            "--default-runtime",
            "box",
        ];
        let client =
            ["/usr/bin/docker".to_owned(), "--host".to_owned(), format!("unix://{socket}")];
        let daemon = Self::start(harness, &line, client);
        daemon.wait_for(&["version"]);
        let mut import = daemon.command(&["import", "-", "box"]);
        import.stdin(root_archive(harness));
        harness.finish(import).ok();
        daemon
    }

    /// containerd, without its CRI plugin.
    pub fn containerd(harness: &'a Harness) -> Self {
        let (socket, config) = (path(harness, "containerd.sock"), harness.path("containerd.toml"));
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {socket:?}\n",
            path(harness, "containerd"),
            path(harness, "containerd-state")
        );
        std::fs::write(&config, text).unwrap();
        let line = ["containerd", "--log-level", "warn", "--config", config.to_str().unwrap()];
        let client = ["/usr/bin/ctr".to_owned(), "--address".to_owned(), socket];
        let daemon = Self::start(harness, &line, client);
        daemon.wait_for(&["version"]);
        daemon
    }

    fn start(harness: &'a Harness, line: &[&str], client: [String; 3]) -> Self {
        let host = Host::new(harness);
        let mut command = Command::new(line[0]);
        let mut command = host.command(harness, command.args(&line[1..]));
        let log = std::fs::File::create(harness.path("daemon.err")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Self { harness, child: command.spawn().unwrap(), client, host }
    }

    fn wait_for(&self, question: &[&str]) {
        let answers = || self.command(question).output().unwrap().status.success();
        let log = self.harness.path("daemon.err");
        eventually(answers, || std::fs::read_to_string(log).unwrap());
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // On the daemon's host, for ctr makes its FIFOs below `/run`; and killed in the end, for ctr
        // passes signals on instead of ending.
        let mut command = Command::new("timeout");
        self.host.command(
            self.harness,
            command.args(["--kill-after=5", "60"]).args(&self.client).args(arguments),
        )
    }

    /// Runs the client to its end.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.harness.finish(self.command(arguments))
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        let _ = self.child.wait();
    }
}

fn path(harness: &Harness, name: &str) -> String {
    harness.path(name).to_str().unwrap().to_owned()
}

/// A root file system as an archive.
fn root_archive(harness: &Harness) -> Stdio {
    let bundle = Bundle::new(harness, "image", &["true"]);
    let archive: PathBuf = harness.path("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(bundle.path().join("rootfs")).arg("-cf").arg(&archive).arg(".");
    assert!(tar.status().unwrap().success());
    std::fs::File::open(archive).unwrap().into()
}
