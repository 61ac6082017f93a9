//! An attachment between a real terminal, or pipes, and a shim that is played by the test.

use std::io::Read;
use std::thread;

use nix::sys::signal::{Signal as NixSignal, raise};
use runhcs_protocol::stream;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use super::*;

/// The shim's ends.
struct Shim {
    control: UnixStream,
    streams: Vec<UnixStream>,
}

impl Shim {
    fn request(&mut self) -> AttachedRequest {
        frame::read(&mut self.control, 4096).unwrap().expect("a request")
    }

    fn exit(&mut self, code: u8) {
        let event = AttachedEvent::Exited(ExitStatus::Exited(code));
        frame::write(&mut self.control, &event).unwrap();
    }
}

fn attach(terminal: bool) -> (Attachment, Shim) {
    let process = ProcessKey { container: "c".parse().unwrap(), exec: None };
    let (ours, control) = UnixStream::pair().unwrap();
    let pairs: Vec<_> =
        (0..if terminal { 1 } else { 3 }).map(|_| UnixStream::pair().unwrap()).collect();
    let (guest, streams): (Vec<OwnedFd>, Vec<UnixStream>) =
        pairs.into_iter().map(|(guest, shim)| (guest.into(), shim)).unzip();
    let signals = Caught::new().unwrap();
    let attachment = Attachment::new(process, terminal, ours, guest, signals).unwrap();
    (attachment, Shim { control, streams })
}

#[test]
fn a_terminal_with_its_size_and_its_signals() {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let slave = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap();
    let mut modes = tcgetattr(&slave).unwrap();
    modes.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &modes).unwrap();
    let size = |ws_col| Winsize { ws_row: 24, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size(80)).unwrap();

    let (attachment, mut shim) = attach(true);
    assert!(attachment.terminal());
    tcsetwinsize(&master, size(132)).unwrap();
    // Held back since the attachment was made, so not lost.
    raise(NixSignal::SIGUSR1).unwrap();
    raise(NixSignal::SIGWINCH).unwrap();

    let guest = thread::spawn(move || {
        // The size at the start, then what has come since, lowest number first (signal(7)).
        for expected in ["132x24", "signal 10", "132x24"] {
            let got = match shim.request() {
                AttachedRequest::Resize(size) => format!("{}x{}", size.width, size.height),
                AttachedRequest::Signal(signal) => format!("signal {}", signal.number()),
            };
            assert_eq!(got, expected);
        }
        let mut chunk = Vec::new();
        let mut stream = shim.streams.remove(0);
        assert!(stream::read_chunk(&mut stream, &mut chunk).unwrap());
        assert_eq!(chunk, b"typed");
        stream::write_data(&mut stream, b"shown").unwrap();
        stream::write_end(&mut stream).unwrap();
        shim.exit(4);
    });
    rustix::io::write(&master, b"typed").unwrap();
    let ended = attachment.run(LocalStdio::Terminal(slave.as_fd())).unwrap();
    guest.join().unwrap();
    assert_eq!(ended.status, ExitStatus::Exited(4));
    assert!(ended.left_behind.is_none());
    let mut shown = [0; 5];
    rustix::io::read(&master, &mut shown).unwrap();
    assert_eq!(&shown, b"shown");
}

fn run_with_pipes(attachment: Attachment) -> (Result<ExitStatus>, Vec<u8>) {
    let (stdin, _feed) = io::pipe().unwrap();
    let (mut output, stdout) = io::pipe().unwrap();
    let stdio =
        LocalStdio::Pipes { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stdout.as_fd() };
    let status = attachment.run(stdio).map(|ended| ended.status);
    drop(stdout);
    let mut data = Vec::new();
    output.read_to_end(&mut data).unwrap();
    (status, data)
}

#[test]
fn output_after_the_end_is_not_lost() {
    let (attachment, mut shim) = attach(false);
    let guest = thread::spawn(move || {
        shim.exit(0);
        thread::sleep(std::time::Duration::from_millis(100));
        for stream in &mut shim.streams[1..] {
            stream::write_data(stream, b"late").unwrap();
            stream::write_end(stream).unwrap();
        }
        // Kept, so that nothing ends by being dropped.
        shim
    });
    let (status, data) = run_with_pipes(attachment);
    drop(guest.join().unwrap());
    assert_eq!(status.unwrap(), ExitStatus::Exited(0));
    assert_eq!(data, b"latelate");
}

#[test]
fn output_that_stays_open_is_not_waited_for_forever() {
    let (attachment, mut shim) = attach(false);
    shim.exit(0);
    let (status, _) = run_with_pipes(attachment);
    assert_eq!(status.unwrap(), ExitStatus::Exited(0));
    drop(shim);
}

#[test]
fn output_of_what_is_left_behind_goes_on() {
    let (attachment, mut shim) = attach(false);
    let (stdin, _feed) = io::pipe().unwrap();
    let (mut output, stdout) = io::pipe().unwrap();
    let stdio =
        LocalStdio::Pipes { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stdout.as_fd() };
    let stream = &mut shim.streams[1];
    stream::write_data(stream, b"own ").unwrap();
    stream.write_all(&stream::LAST_WORDS.to_be_bytes()).unwrap();
    stream::write_end(&mut shim.streams[2]).unwrap();
    shim.exit(3);
    let ended = attachment.run(stdio).unwrap();
    assert_eq!(ended.status, ExitStatus::Exited(3));
    let mut own = [0; 4];
    output.read_exact(&mut own).unwrap();
    assert_eq!(&own, b"own ");
    let guest = thread::spawn(move || {
        let stream = &mut shim.streams[1];
        stream::write_data(stream, b"others'").unwrap();
        stream::write_end(stream).unwrap();
        shim
    });
    ended.left_behind.expect("the output is open").carry().unwrap();
    drop((guest.join().unwrap(), stdout));
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"others'");
}

#[test]
fn a_shim_that_goes_away_is_an_error() {
    let (attachment, shim) = attach(false);
    drop(shim);
    let (status, _) = run_with_pipes(attachment);
    let error = status.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("lost with its VM shim"), "{error}: {source}");
}
