//! What two containers do with each other by way of a volume. Each says on its standard output how
//! far it has come.

use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, fcntl_lock, flock, inotify};

use crate::map::Map;

/// How often each of two containers counts.
const COUNTS: u64 = 20_000;

fn open(path: &Path) -> Result<File> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path);
    file.with_context(|| format!("open {}", path.display()))
}

/// Takes both kinds of locks on a file and keeps them until it is killed.
pub fn hold_lock(path: &Path) -> Result<()> {
    let file = open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).context("flock")?;
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).context("fcntl lock")?;
    say("locked")?;
    std::thread::sleep(Duration::from_secs(1000));
    Ok(())
}

/// Says whether others hold locks on a file.
pub fn try_lock(path: &Path) -> Result<()> {
    let file = open(path)?;
    let word = |result: rustix::io::Result<()>| if result.is_ok() { "free" } else { "held" };
    let whole = word(flock(&file, FlockOperation::NonBlockingLockExclusive));
    let range = word(fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive));
    say(&format!("{whole} {range}"))
}

/// Answers one client on a socket.
pub fn listen(path: &Path) -> Result<()> {
    let listener = UnixListener::bind(path).context("bind the socket")?;
    say("listening")?;
    let (mut client, _) = listener.accept()?;
    let mut text = String::new();
    client.read_to_string(&mut text)?;
    client.write_all(format!("heard {text}").as_bytes())?;
    Ok(())
}

/// Asks who listens on a socket, and prints the answer.
pub fn connect(path: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(path).context("connect to the socket")?;
    stream.write_all(b"hello")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    say(&text)
}

/// Prints the name of the first file that is made in a directory.
pub fn watch(path: &Path) -> Result<()> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, path, inotify::WatchFlags::CREATE).context("watch")?;
    say("watching")?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let event = events.next().context("hear of a new file")?;
    let Some(name) = event.file_name() else { bail!("an event without a name") };
    say(&name.to_string_lossy())
}

/// Counts in memory that is shared by a file. Prints what it has come to.
pub fn count_in_shared_memory(path: &Path) -> Result<()> {
    let file = open(path)?;
    file.set_len(4096)?;
    let map = Map::new(&file, 4096)?;
    for _ in 0..COUNTS {
        map.counter().fetch_add(1, Ordering::SeqCst);
    }
    map.sync()?;
    say("counted")
}

fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("write to standard output")
}

/// Prints the errors that a new and an old call fail with.
pub fn print_refusals(path: &Path) -> Result<()> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
    let new = rustix::fs::openat2(CWD, path, OFlags::PATH, Mode::empty(), ResolveFlags::empty());
    let new = new.err().map_or(0, |error| error.raw_os_error());
    let old = std::fs::create_dir(path).err().and_then(|error| error.raw_os_error()).unwrap_or(0);
    say(&format!("openat2 {new}, mkdir {old}"))
}
