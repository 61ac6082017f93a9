//! The receiving side of a console socket.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// A console socket that a test listens on.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens at `path`.
    pub fn new(path: &Path) -> Self {
        Self { listener: UnixListener::bind(path).unwrap(), path: path.to_owned() }
    }

    /// Where it listens.
    pub fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Waits for the terminal's master.
    pub fn receive(self) -> std::fs::File {
        let (connection, _) = self.listener.accept().unwrap();
        let mut name = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut name)];
        recvmsg(&connection, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let master: OwnedFd = control
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            })
            .expect("a terminal comes with the message");
        std::fs::remove_file(&self.path).unwrap();
        master.into()
    }
}

/// Reads a terminal until what it showed ends with `text`.
pub fn read_until(master: &mut std::fs::File, text: &str) -> String {
    let mut shown = String::new();
    let mut buffer = [0; 1024];
    while !shown.contains(text) {
        match master.read(&mut buffer) {
            Ok(0) | Err(_) => panic!("the terminal ended after {shown:?}"),
            Ok(n) => shown += &String::from_utf8_lossy(&buffer[..n]),
        }
    }
    shown
}

/// Types into a terminal.
pub fn type_in(master: &mut std::fs::File, text: &str) {
    master.write_all(text.as_bytes()).unwrap();
}
