//! A network of the benchmark's own: a namespace with a TCP server in it, one for a pod that is
//! wired to it, a tap for a bare QEMU, and a tap behind the same wiring as the pod's.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the server listens for the pod.
pub const FOR_POD: &str = "10.91.0.1:7000";

/// Where the tap of a bare QEMU is.
#[derive(Clone, Copy, Debug)]
pub enum Tap {
    /// It is the server's own interface.
    Direct,
    /// It is beside an interface of a namespace like the pod's, and traffic control passes packets
    /// between the two as the VM shim has it do.
    Redirected,
}

impl Tap {
    /// The first three numbers of the addresses there: the server's ends in 1, the guest's in 2.
    pub fn subnet(self) -> &'static str {
        match self {
            Self::Direct => "10.92.0",
            Self::Redirected => "10.93.0",
        }
    }
}

const MIB: usize = 1 << 20;
/// As much as `probe` sends and receives.
const SIZE: usize = 32;

/// The namespaces. They end when this is dropped.
#[derive(Debug)]
pub struct Network {
    server: String,
    pod: String,
    redirected: String,
}

impl Network {
    /// Makes them and starts the server.
    pub fn new() -> Result<Self> {
        let id = std::process::id();
        let name = |letter: char| format!("rhbench{id}{letter}");
        let network = Self { server: name('s'), pod: name('p'), redirected: name('r') };
        let Self { server, pod, redirected } = &network;
        for line in [
            format!("netns add {server}"),
            format!("netns add {pod}"),
            format!("netns add {redirected}"),
            format!("-n {pod} link add eth0 type veth peer name peer0 netns {server}"),
            format!("-n {pod} address add 10.91.0.2/24 dev eth0"),
            format!("-n {pod} link set eth0 up"),
            format!("-n {server} address add 10.91.0.1/24 dev peer0"),
            format!("-n {server} link set peer0 up"),
            format!("-n {server} tuntap add tap0 mode tap vnet_hdr"),
            format!("-n {server} address add 10.92.0.1/24 dev tap0"),
            format!("-n {server} link set tap0 up"),
            format!("-n {redirected} link add eth0 type veth peer name peer1 netns {server}"),
            format!("-n {redirected} link set eth0 up"),
            format!("-n {server} address add 10.93.0.1/24 dev peer1"),
            format!("-n {server} link set peer1 up"),
            format!("-n {redirected} tuntap add tap0 mode tap vnet_hdr"),
            format!("-n {redirected} link set tap0 up"),
        ] {
            run("ip", &line)?;
        }
        for (from, to) in [("eth0", "tap0"), ("tap0", "eth0")] {
            run("tc", &format!("-n {redirected} qdisc add dev {from} ingress"))?;
            let filter = "protocol all u32 match u32 0 0 action mirred egress redirect";
            let line =
                format!("-n {redirected} filter add dev {from} parent ffff: {filter} dev {to}");
            run("tc", &line)?;
        }
        let namespace = File::open(path(server)).context("open the server's namespace")?;
        let (ready, started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let listener =
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(std::io::Error::from)
                    .and_then(|()| TcpListener::bind("0.0.0.0:7000"));
            let listener = match listener {
                Ok(listener) => listener,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            for stream in listener.incoming().flatten() {
                // One that hangs up early is the other side's to report.
                let _ = serve(stream);
            }
        });
        started.recv().context("start the server")?.context("start the server")?;
        Ok(network)
    }

    /// The pod's namespace.
    pub fn pod(&self) -> PathBuf {
        path(&self.pod)
    }

    /// A command in the namespace where `tap` is, which is called `tap0`.
    pub fn beside(&self, tap: Tap, program: &str) -> Command {
        let namespace = match tap {
            Tap::Direct => &self.server,
            Tap::Redirected => &self.redirected,
        };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", path(namespace).display())).arg(program);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in [&self.pod, &self.redirected, &self.server] {
            let _ = run("ip", &format!("netns delete {name}"));
        }
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

fn run(program: &str, line: &str) -> Result<()> {
    let status = Command::new(program).args(line.split(' ')).status();
    let status = status.with_context(|| format!("run {program}"))?;
    ensure!(status.success(), "`{program} {line}` failed");
    Ok(())
}

/// Does what the first byte asks for: send, receive, or echo.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; MIB];
    stream.read_exact(&mut buffer[..1])?;
    match buffer[0] {
        b's' => (0..SIZE).try_for_each(|_| stream.write_all(&buffer)),
        b'r' => {
            (0..SIZE).try_for_each(|_| stream.read_exact(&mut buffer))?;
            stream.write_all(&[1])
        }
        _ => loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            stream.write_all(&buffer[..read])?;
        },
    }
}
