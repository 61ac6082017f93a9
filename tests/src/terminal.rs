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

/// A terminal of the test's own, as a person has one, with a command that runs in it.
#[derive(Debug)]
pub struct Session {
    /// What the person sees and types into.
    pub master: std::fs::File,
    slave: OwnedFd,
    /// The command.
    pub child: std::process::Child,
}

impl Session {
    /// Starts a command as the leader of a terminal of this size, in rows and columns.
    pub fn start(mut command: std::process::Command, (rows, columns): (u16, u16)) -> Self {
        use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
        use std::os::unix::process::CommandExt;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap());
        command.stderr(slave.try_clone().unwrap());
        // SAFETY: only system calls that are allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
            });
        }
        let mut session = Self { master: master.into(), slave, child: command.spawn().unwrap() };
        session.resize(rows, columns);
        session
    }

    /// Changes the terminal's size, of which the command is told.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        let size =
            rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
    }

    /// Whether the terminal is in raw mode.
    pub fn is_raw(&self) -> bool {
        let mode = rustix::termios::tcgetattr(&self.slave).unwrap();
        !mode
            .local_modes
            .intersects(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO)
    }

    /// Waits for the command's end; its exit code, or 128 plus the signal that ended it.
    pub fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().unwrap();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }
}
