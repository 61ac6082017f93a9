//! A network of the benchmark's own: a namespace with a TCP server in it, one for a pod that is
//! wired to it, and a tap for a bare QEMU.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the server listens, for the pod and for the bare QEMU.
pub const FOR_POD: &str = "10.91.0.1:7000";
pub const FOR_BARE: &str = "10.92.0.1:7000";

const MIB: usize = 1 << 20;
/// As much as `probe` sends and receives.
const SIZE: usize = 32;

/// The namespaces. They end when this is dropped.
#[derive(Debug)]
pub struct Network {
    server: String,
    pod: String,
}

impl Network {
    /// Makes them and starts the server.
    pub fn new() -> Result<Self> {
        let id = std::process::id();
        let network = Self { server: format!("rhbench{id}s"), pod: format!("rhbench{id}p") };
        let (server, pod) = (&network.server, &network.pod);
        for line in [
            format!("netns add {server}"),
            format!("netns add {pod}"),
            format!("-n {pod} link add eth0 type veth peer name peer0 netns {server}"),
            format!("-n {pod} address add 10.91.0.2/24 dev eth0"),
            format!("-n {pod} link set eth0 up"),
            format!("-n {server} address add 10.91.0.1/24 dev peer0"),
            format!("-n {server} link set peer0 up"),
            format!("-n {server} tuntap add tap0 mode tap vnet_hdr"),
            format!("-n {server} address add 10.92.0.1/24 dev tap0"),
            format!("-n {server} link set tap0 up"),
        ] {
            ip(&line)?;
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

    /// A command in the server's namespace, where the tap `tap0` is.
    pub fn beside_server(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", path(&self.server).display())).arg(program);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in [&self.pod, &self.server] {
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

fn ip(line: &str) -> Result<()> {
    let status = Command::new("ip").args(line.split(' ')).status().context("run ip")?;
    ensure!(status.success(), "`ip {line}` failed");
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
