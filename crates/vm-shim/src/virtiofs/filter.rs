//! The system calls that the virtiofs daemon may make, once it serves: those on files that it has
//! found, and what its threads need. There is no way to another program, namespace or socket.

use anyhow::Context;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

/// What the guest's requests come to.
const FILES: [&str; 56] = [
    "close",
    "copy_file_range",
    "dup",
    "fallocate",
    "fchdir",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fchownat",
    "fcntl",
    "fdatasync",
    "fgetxattr",
    "flistxattr",
    "flock",
    "fremovexattr",
    "fsetxattr",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "getdents64",
    "getxattr",
    "linkat",
    "listxattr",
    "lseek",
    "mkdirat",
    "mknodat",
    "name_to_handle_at",
    "newfstatat",
    "open",
    "open_by_handle_at",
    "openat",
    "openat2",
    "pread64",
    "preadv",
    "preadv2",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readlinkat",
    "readv",
    "removexattr",
    "renameat",
    "renameat2",
    "setxattr",
    "stat",
    "statfs",
    "statx",
    "symlinkat",
    "syncfs",
    "umask",
    "unlink",
    "unlinkat",
    "utimensat",
    "write",
];

/// What threads, memory, QEMU's messages and the log come to; files are made as the guest's users.
const RUNTIME: [&str; 49] = [
    "accept4",
    "brk",
    "capget",
    "capset",
    "clock_gettime",
    "clock_nanosleep",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_wait",
    "eventfd2",
    "exit",
    "exit_group",
    "futex",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getrandom",
    "gettid",
    "gettimeofday",
    "getuid",
    "madvise",
    "membarrier",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "poll",
    "ppoll",
    "prctl",
    "recvmsg",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "sendmsg",
    "set_robust_list",
    "setgroups",
    "setresgid",
    "setresuid",
    "sigaltstack",
    "tgkill",
    "time",
    "writev",
];

/// Denies all other calls from now on, to this thread and those that it starts, as if the kernel
/// didn't have them (`ENOSYS`): libraries try newer calls first.
pub fn load() -> anyhow::Result<()> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(libc::ENOSYS))
        .context("cannot make a seccomp filter")?;
    for name in FILES.into_iter().chain(RUNTIME) {
        // A call that this version of the library doesn't know can't be allowed.
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        filter.add_rule(ScmpAction::Allow, call).with_context(|| format!("cannot allow {name}"))?;
    }
    // Threads, not processes; clone3(2)'s flags are out of a filter's sight.
    let threads = masked(libc::CLONE_THREAD as u64);
    filter
        .add_rule_conditional(ScmpAction::Allow, ScmpSyscall::from_name("clone")?, &[threads])
        .context("cannot allow threads")?;
    // Threads with working directories of their own, and nothing else of their own.
    let directories = ScmpArgCompare::new(0, ScmpCompareOp::Equal, libc::CLONE_FS as u64);
    filter
        .add_rule_conditional(ScmpAction::Allow, ScmpSyscall::from_name("unshare")?, &[directories])
        .context("cannot allow working directories of threads")?;
    filter.load().context("cannot load the seccomp filter")
}

fn masked(bits: u64) -> ScmpArgCompare {
    ScmpArgCompare::new(0, ScmpCompareOp::MaskedEqual(bits), bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_and_files_but_no_programs() {
        // In a thread of its own: the filter stays with it.
        let outcome = std::thread::spawn(|| {
            load().unwrap();
            let file = std::fs::read("/proc/self/stat").is_ok();
            let thread = std::thread::spawn(|| 7).join().unwrap();
            let program = std::process::Command::new("/bin/true").status().is_err();
            let socket = std::os::unix::net::UnixDatagram::unbound().is_err();
            (file, thread, program, socket)
        });
        assert_eq!(outcome.join().unwrap(), (true, 7, true, true));
    }
}
