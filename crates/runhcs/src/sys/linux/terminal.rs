//! Terminals of this host: the console socket, a pty of one's own, and the caller's terminal in
//! raw mode.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};

use super::pidfd_socket::send_descriptor;

/// Connects to a console socket.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let socket = UnixStream::connect(path);
    Ok(socket.with_context(|| format!("connect to console socket {}", path.display()))?.into())
}

/// Makes a pty, takes its slave as this process's controlling terminal, in raw mode, and sends the
/// master over a console socket. This process must lead a session.
pub fn own_pty(console_socket: &Path) -> Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).context("make a terminal")?;
    rustix::pty::unlockpt(&master).context("unlock the terminal")?;
    let name = rustix::pty::ptsname(&master, Vec::new()).context("name the terminal")?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).context("open the terminal")?;
    rustix::process::ioctl_tiocsctty(&slave).context("take the controlling terminal")?;
    make_raw(slave.as_fd(), OutputModes::empty())?;
    let socket = connect(console_socket)?;
    send_descriptor(&socket, name.to_bytes(), &master)
        .with_context(|| format!("send the terminal to {}", console_socket.display()))?;
    Ok(slave)
}

/// Raw, but for what is to be done with output.
fn make_raw(terminal: BorrowedFd<'_>, output: OutputModes) -> Result<Termios> {
    let before = tcgetattr(terminal).context("read the terminal's mode")?;
    let mut raw = before.clone();
    raw.make_raw();
    raw.output_modes |= output;
    tcsetattr(terminal, OptionalActions::Now, &raw).context("set the terminal to raw mode")?;
    Ok(before)
}

/// Which terminal makes of the end of a line what a screen needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnds {
    /// The caller's: a pty of the container's on this host passes them as they are.
    Callers,
    /// The one in the VM, which programs there can tell not to.
    Guests,
}

/// The caller's terminal in raw mode until this is dropped, or this process panics: a panic may
/// abort it without dropping anything.
#[derive(Debug)]
pub struct Raw(Option<Termios>);

impl Raw {
    /// Sets standard input to raw mode, if it is a terminal.
    pub fn enter(ends: LineEnds) -> Result<Self> {
        let stdin = std::io::stdin();
        if !rustix::termios::isatty(&stdin) {
            return Ok(Self(None));
        }
        let before = make_raw(
            stdin.as_fd(),
            match ends {
                LineEnds::Callers => OutputModes::OPOST,
                LineEnds::Guests => OutputModes::empty(),
            },
        )?;
        let (earlier, mode) = (std::panic::take_hook(), before.clone());
        std::panic::set_hook(Box::new(move |panic| {
            restore(&mode);
            earlier(panic);
        }));
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.0.iter().for_each(restore);
    }
}

fn restore(mode: &Termios) {
    let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, mode);
}

/// A console socket of this process's own, for a shim that connects to it by path.
#[derive(Debug)]
pub struct Listener {
    socket: std::os::unix::net::UnixListener,
    directory: tempfile::TempDir,
}

impl Listener {
    /// Listens in a new private directory.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("runhcs-console-").tempdir();
        let directory = directory.context("make a directory for the console socket")?;
        let socket = std::os::unix::net::UnixListener::bind(directory.path().join("socket"));
        Ok(Self { socket: socket.context("make a console socket")?, directory })
    }

    /// Where it listens.
    pub fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("socket")
    }

    /// Receives the master that somebody has sent already.
    pub fn receive(self) -> Result<OwnedFd> {
        let (connection, _) = self.socket.accept().context("accept on the console socket")?;
        let master = runhcs_container::receive_terminal(&connection)?;
        keep_line_ends(&master)?;
        Ok(master)
    }
}

/// Has a terminal pass the ends of lines as they are: who reads its output may be no terminal, and
/// a terminal makes of them what it wants itself.
fn keep_line_ends(master: &OwnedFd) -> Result<()> {
    let mut mode = tcgetattr(master).context("read the terminal's mode")?;
    mode.output_modes -= OutputModes::ONLCR;
    tcsetattr(master, OptionalActions::Now, &mode).context("set the terminal's mode")
}

/// The size of standard input, in columns and rows, if that is a terminal that has one.
pub fn own_size() -> Option<Winsize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdin()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some(size)
}

/// Sets a terminal's size to that of standard input, if that is a terminal.
pub fn copy_size(master: &OwnedFd) {
    if let Some(size) = own_size() {
        let _ = tcsetwinsize(master, size);
    }
}

/// Copies between the caller's stdio and a terminal's master. Neither direction waits for the
/// other: a process that takes no input because nobody takes its output goes on once somebody does.
pub struct Copier<'a> {
    master: &'a OwnedFd,
    input_open: bool,
    /// Input that the terminal has not taken yet.
    pending: Vec<u8>,
}

impl<'a> Copier<'a> {
    /// Copies for this terminal, which nobody else reads or writes.
    pub fn new(master: &'a OwnedFd) -> Result<Self> {
        let flags = rustix::fs::fcntl_getfl(master).context("look at the terminal")?;
        rustix::fs::fcntl_setfl(master, flags | rustix::fs::OFlags::NONBLOCK)
            .context("set the terminal up")?;
        Ok(Self { master, input_open: true, pending: Vec::new() })
    }

    /// Copies what the terminal still holds after its last process has ended.
    pub fn drain(&mut self) -> Result<()> {
        self.input_open = false;
        let mut buffer = [0; 4096];
        loop {
            let mut fds = [PollFd::new(self.master, PollFlags::IN)];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            match poll(&mut fds, Some(&now)) {
                Ok(0) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for the terminal"),
            }
            match rustix::io::read(self.master, &mut buffer) {
                Ok(0) | Err(Errno::IO) => return Ok(()),
                Ok(n) => write_all(std::io::stdout().as_fd(), &buffer[..n])?,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error).context("read the terminal"),
            }
        }
    }

    /// Waits for data, or for one of `wakes` to become readable, and copies what there is. `false`
    /// once the terminal has ended.
    pub fn turn(&mut self, wakes: &[BorrowedFd<'_>]) -> Result<bool> {
        let stdin = std::io::stdin();
        let wants_input = self.input_open && self.pending.is_empty();
        let of_master =
            if self.pending.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut fds = vec![PollFd::new(self.master, of_master)];
        // One that isn't asked for anything would still be reported once it has hung up.
        fds.extend(wants_input.then(|| PollFd::new(&stdin, PollFlags::IN)));
        fds.extend(wakes.iter().map(|wake| PollFd::new(wake, PollFlags::IN)));
        match poll(&mut fds, None) {
            Err(Errno::INTR) => return Ok(true),
            other => other.context("wait for the terminal")?,
        };
        let (master, input) = (fds[0].revents(), wants_input && !fds[1].revents().is_empty());
        let mut buffer = [0; 4096];
        if master.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            // EIO: the last process with the slave has closed it (tty_ioctl(4), pty(7)).
            match rustix::io::read(self.master, &mut buffer) {
                Ok(0) | Err(Errno::IO) => return Ok(false),
                Ok(n) => write_all(std::io::stdout().as_fd(), &buffer[..n])?,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error).context("read the terminal"),
            }
        }
        if input {
            match rustix::io::read(&stdin, &mut buffer) {
                Ok(0) | Err(Errno::IO) => self.input_open = false,
                Ok(n) => self.pending.extend_from_slice(&buffer[..n]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error).context("read standard input"),
            }
        }
        if !self.pending.is_empty() {
            match rustix::io::write(self.master, &self.pending) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::IO) => self.pending.clear(),
                Err(error) => return Err(error).context("write to the terminal"),
            }
        }
        Ok(true)
    }
}

fn write_all(fd: BorrowedFd<'_>, mut data: &[u8]) -> Result<()> {
    while !data.is_empty() {
        match rustix::io::write(fd, data) {
            Ok(n) => data = &data[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None);
            }
            // Nobody reads any more, or the terminal has ended.
            Err(Errno::PIPE | Errno::IO) => return Ok(()),
            Err(error) => return Err(error).context("copy terminal data"),
        }
    }
    Ok(())
}
