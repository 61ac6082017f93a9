//! Networks for tests: a namespace such as a CNI plugin makes, wired to another one that stands
//! for the rest of the world.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Harness;

/// A network namespace at a path. Dropping it ends it.
#[derive(Debug)]
pub struct Netns(PathBuf);

impl Netns {
    /// An empty one with its loopback up.
    pub fn new(harness: &Harness, name: &str) -> Self {
        let path = harness.path(name);
        std::fs::File::create(&path).unwrap();
        let made = Command::new("unshare")
            .arg(format!("--net={}", path.display()))
            .args(["ip", "link", "set", "lo", "up"])
            .status();
        assert!(made.unwrap().success());
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A program of this host, in the namespace.
    pub fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.0.display())).args(program);
        command
    }

    /// Runs a program to its end; it must succeed. Returns what it printed.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = self.command(&words).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Connects `name` here with `other_name` in the other namespace.
    pub fn connect(&self, name: &str, other: &Self, other_name: &str) {
        // Made here, because interfaces of the tests' own namespace are everybody's.
        self.run(&format!("ip link add {name} type veth peer name {other_name}"));
        let path = other.0.to_str().unwrap();
        // A namespace is named by a path for the `ip` that enters it, and by a descriptor here.
        let script = format!("exec 9< {path}; ip link set {other_name} netns /proc/self/fd/9");
        let moved = self.command(&["sh", "-c", &script]).status().unwrap();
        assert!(moved.success());
        self.run(&format!("ip link set {name} up"));
        other.run(&format!("ip link set {other_name} up"));
    }

    /// Serves files of a directory over HTTP on port 80 until the result is dropped.
    pub fn serve(&self, directory: &Path) -> Server {
        let directory = directory.to_str().unwrap();
        let mut command =
            self.command(&["/bin/busybox", "httpd", "-f", "-p", "80", "-h", directory]);
        Server(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// Answers questions for names, at port 53, with this address, until the result is dropped.
    pub fn answer_names(&self, address: Ipv4Addr) -> Names {
        let namespace = std::fs::File::open(&self.0).unwrap();
        let (ready, listening) = mpsc::channel();
        let (asked, questions) = mpsc::channel();
        std::thread::spawn(move || -> io::Result<()> {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            let socket = UdpSocket::bind("0.0.0.0:53")?;
            let _ = ready.send(socket.try_clone()?);
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer)?;
                if length == 0 {
                    return Ok(());
                }
                let question = &buffer[..length];
                socket.send_to(&answer(question, address), from)?;
                let _ = asked.send(question.to_vec());
            }
        });
        Names { socket: listening.recv().unwrap(), questions }
    }
}

/// The answer to a question of one name (RFC 1035, section 4).
fn answer(question: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let mut message = question.to_vec();
    // A response, without an error, to one question. Names have addresses of the old kind only.
    let found = question.ends_with(&[0, 1, 0, 1]);
    message[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    if found {
        // The name in the question, an address of the Internet, for a minute.
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend(address.octets());
    }
    message
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Somebody who answers questions for names.
#[derive(Debug)]
pub struct Names {
    socket: UdpSocket,
    /// The questions, as they came.
    pub questions: mpsc::Receiver<Vec<u8>>,
}

impl Drop for Names {
    fn drop(&mut self) {
        // An empty question ends it.
        let _ = self.socket.send_to(&[], "127.0.0.1:53");
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
