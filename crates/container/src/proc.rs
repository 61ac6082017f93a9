//! Processes by pidfd, and files of procfs through a checked descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use runhcs_compute::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::Init;
use crate::error::Context;

/// How statfs(2) tells procfs (linux/magic.h).
pub(crate) const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// The number of procfs' root directory (`PROC_ROOT_INO` in linux/proc_ns.h).
pub(crate) const PROC_ROOT_INODE: u64 = 1;

/// A pidfd; `ESRCH` if there is no such process.
pub(crate) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid as i32).ok_or(Errno::SRCH)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        // What has the number is no process: a thread, or one that is reaped at this moment. Newer
        // kernels have an error of their own for it.
        Err(Errno::INVAL | Errno::NOENT) => Err(Errno::SRCH.into()),
        other => Ok(other?),
    }
}

/// Waits until the descriptor is readable (a pidfd: the process has ended); false at the deadline.
pub(crate) fn wait_readable(fd: impl AsFd, deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a file of the kernel's holds, in one read: it tells no size beforehand, and
/// `read_to_string` reads it piece by piece. At most 1 KiB; names in it may be anything.
pub(crate) fn read_short(path: impl AsRef<Path>) -> io::Result<String> {
    let mut buffer = [0; 1 << 10];
    let length = io::Read::read(&mut std::fs::File::open(path)?, &mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// As [`read_short`], for what may be longer.
pub(crate) fn read_long(path: impl AsRef<Path>) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(16 << 10);
    io::Read::read_to_end(&mut std::fs::File::open(path)?, &mut bytes)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// The state letter and the start time of a process (proc(5), `/proc/<pid>/stat`).
pub(crate) fn stat(pid: u32) -> io::Result<(char, u64)> {
    let text = read_short(format!("/proc/{pid}/stat"))?;
    // The command's name is in parentheses and may hold anything, parentheses too.
    let malformed = || io::Error::other(format!("/proc/{pid}/stat is malformed"));
    let (_, rest) = text.rsplit_once(") ").ok_or_else(malformed)?;
    let mut fields = rest.split(' ');
    let state = fields.next().and_then(|field| field.chars().next()).ok_or_else(malformed)?;
    let start = fields.nth(18).and_then(|field| field.parse().ok()).ok_or_else(malformed)?;
    Ok((state, start))
}

/// The process and, if it is its pid namespace's first, all others in that namespace.
pub(crate) fn in_pid_namespace_of(init: &Init) -> io::Result<Vec<u32>> {
    if init.open().map_err(io::Error::other)?.is_none() {
        return Ok(Vec::new());
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", init.pid))?;
    let own = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    if own.and_then(|pids| pids.split_whitespace().last()) != Some("1") {
        return Ok(vec![init.pid]);
    }
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    // Init hides itself until it has become the container's program; there are no others then.
    let Ok(own) = namespace(init.pid) else { return Ok(vec![init.pid]) };
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse() else { continue };
        // Others' processes can't be looked at, and are no container's of the caller.
        let ended = || matches!(stat(pid), Ok(('Z' | 'X', _)) | Err(_));
        if namespace(pid).is_ok_and(|other| other == own) && !ended() {
            pids.push(pid);
        }
    }
    Ok(pids)
}

impl Init {
    /// The process with this pid, as it is now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let (_, start_time) = stat(pid).context(|| format!("read /proc/{pid}/stat"))?;
        Ok(Self { pid, start_time })
    }

    /// A pidfd of this very process; `None` if it has ended, also if it is a zombie or its pid
    /// belongs to another now.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        let what = || format!("look at process {}", self.pid);
        let pidfd = match pidfd(self.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error).context(what),
        };
        // With the pidfd in hand the pid can't be given away while we look.
        match stat(self.pid) {
            Ok((state, start)) if start == self.start_time && !matches!(state, 'Z' | 'X') => {
                Ok(Some(pidfd))
            }
            Ok(_) => Ok(None),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
                Ok(None)
            }
            Err(error) => Err(error).context(what),
        }
    }
}

/// Sends a signal; a process that has ended needs none.
pub(crate) fn send(pidfd: &OwnedFd, signal: runhcs_compute::Signal) -> Result<()> {
    // SAFETY: numbers 1 to 64 are the kernel's signals; this process handles none of them here.
    let signal = unsafe { Signal::from_raw_unchecked(i32::from(signal.number())) };
    match pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(Error::failed(format!("send {signal:?}"), error)),
    }
}

/// Writes to a file of the real procfs, below `/proc`: not to anything a container could have put
/// there (CVE-2019-16884, CVE-2025-52881).
pub(crate) fn write(path: &Path, value: &str) -> Result<()> {
    let what = || format!("write {value:?} to /proc/{}", path.display());
    let file = open_genuine(path, OFlags::WRONLY).context(what)?;
    rustix::io::write(&file, value.as_bytes()).context(what)?;
    Ok(())
}

/// Opens a file of the real procfs, below `/proc`. Nothing that is mounted over a part of it, and
/// none of its links to files and directories elsewhere, is gone through.
fn open_genuine(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", directory, Mode::empty())?;
    let genuine = rustix::fs::fstatfs(&proc)?.f_type == PROC_SUPER_MAGIC
        && rustix::fs::fstat(&proc)?.st_ino == PROC_ROOT_INODE;
    if !genuine {
        return Err(io::Error::other("/proc is not a procfs"));
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(&proc, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// This process's descriptors as procfs shows them (proc(5), `/proc/<pid>/fd`), to be opened while
/// `/proc` is not yet the container's.
#[derive(Debug)]
pub(crate) struct OwnDescriptors(OwnedFd);

impl OwnDescriptors {
    pub(crate) fn open() -> Result<Self> {
        open_genuine(Path::new("self/fd"), OFlags::PATH | OFlags::DIRECTORY)
            .map(Self)
            .context(|| "open /proc/self/fd".into())
    }

    /// Opens what an `O_PATH` descriptor refers to.
    pub(crate) fn reopen(&self, fd: &OwnedFd, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.0, fd.as_raw_fd().to_string(), flags, Mode::empty())?;
        let identity = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
        // Something may be mounted over the link.
        if identity(&opened)? == identity(fd)? {
            Ok(opened)
        } else {
            Err(io::Error::other("/proc/self/fd leads elsewhere"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_pid() {
        let own = Init::of(std::process::id()).unwrap();
        assert!(own.open().unwrap().is_some());
        assert!(Init { start_time: own.start_time + 1, ..own }.open().unwrap().is_none());
    }

    #[test]
    fn what_is_no_process_has_ended() {
        assert!(Init { pid: 0, start_time: 1 }.open().unwrap().is_none());
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_pid()).unwrap();
            let _ = ended.recv();
        });
        // pidfd_open(2) says EINVAL or ENOENT of a thread, as of a process that is being reaped.
        let thread_id = told.recv().unwrap() as u32;
        assert!(Init { pid: thread_id, start_time: 1 }.open().unwrap().is_none());
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn a_process_may_have_any_name() {
        let directory = tempfile::tempdir().unwrap();
        let name = std::os::unix::ffi::OsStrExt::from_bytes(b"a) \xff (S 1 ");
        let program = directory.path().join::<&std::ffi::OsStr>(name);
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("60").spawn().unwrap();
        let init = Init::of(child.id()).unwrap();
        let opened = init.open();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(opened.unwrap().is_some());
    }

    #[test]
    fn a_zombie_has_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let init = Init::of(child.id()).unwrap();
        wait_readable(pidfd(child.id()).unwrap(), None).unwrap();
        assert!(init.open().unwrap().is_none());
        child.wait().unwrap();
        assert!(init.open().unwrap().is_none());
    }

    #[test]
    fn only_the_real_procfs_is_written() {
        let error = write(Path::new("self/root/tmp"), "x").unwrap_err();
        // ELOOP: a link that leads out of procfs.
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("os error 40"), "{cause}");
        assert!(write(Path::new("/etc/hostname"), "x").is_err());
        assert!(write(Path::new("../etc/hostname"), "x").is_err());
    }

    #[test]
    fn a_descriptor_is_opened_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "content").unwrap();
        let path = rustix::fs::open(file.path(), OFlags::PATH, Mode::empty()).unwrap();
        let again = OwnDescriptors::open().unwrap().reopen(&path, OFlags::RDONLY).unwrap();
        assert_eq!(io::read_to_string(std::fs::File::from(again)).unwrap(), "content");
    }
}
