//! The host's ps(1) showing processes of a guest: it runs where `/proc` holds what the guest's says
//! of them.
//!
//! The files are the guest's word, and `ps` takes them as it takes any process's own: names and
//! command lines have always been up to the processes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use runhcs_protocol::processes::{ProcessFiles, ProcessTable, SystemFiles};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
};
use rustix::thread::UnshareFlags;

/// Has this process, and the children it starts from now on, see the guest's processes in `/proc`.
/// The first child is process 1 there, and has to be `ps`.
pub fn enter(table: &ProcessTable) -> Result<()> {
    let proc = tmpfs().context("make a file system for the guest's processes")?;
    fill(proc.as_fd(), table).context("write what the guest says of its processes")?;
    // A pid namespace of its own, because ps has to find itself, and its pid could be that of a
    // process of the guest. Process 1 of the guest is its agent and in no container.
    // SAFETY: this process has one thread, and shares no file descriptors with others.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWPID) }
        .context("enter new mount and pid namespaces")?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("detach from the host's mounts")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&proc, "", rustix::fs::CWD, "/proc", flags).context("cover /proc")
}

fn tmpfs() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "mode", "0555")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn fill(proc: BorrowedFd<'_>, table: &ProcessTable) -> Result<()> {
    let SystemFiles { uptime, stat, memory } = &table.system;
    // Of cpuinfo ps wants no more than that it is there.
    let files = [("uptime", uptime.as_str()), ("stat", stat), ("meminfo", memory), ("cpuinfo", "")];
    for (name, text) in files {
        write(proc, name, text)?;
    }
    for process in &table.processes {
        fill_process(proc, &process.pid.to_string(), process)?;
    }
    // What ps reads of itself.
    let own = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}"));
    let itself = ProcessFiles {
        pid: 1,
        stat: renumbered(&own("stat")?),
        status: own("status")?,
        command_line: String::new(),
        cgroup: String::new(),
    };
    for name in ["1", "self"] {
        fill_process(proc, name, &itself)?;
    }
    Ok(())
}

fn fill_process(proc: BorrowedFd<'_>, name: &str, process: &ProcessFiles) -> Result<()> {
    rustix::fs::mkdirat(proc, name, Mode::from_raw_mode(0o555))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(proc, name, flags, Mode::empty())?;
    let ProcessFiles { pid: _, stat, status, command_line, cgroup } = process;
    for (name, text) in
        [("stat", stat), ("status", status), ("cmdline", command_line), ("cgroup", cgroup)]
    {
        write(directory.as_fd(), name, text)?;
    }
    Ok(())
}

fn write(directory: BorrowedFd<'_>, name: &str, text: &str) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o444))?;
    std::io::Write::write_all(&mut std::fs::File::from(file), text.as_bytes())
        .with_context(|| format!("write {name}"))
}

/// A process's `stat` with 1 for its pid, the first field.
fn renumbered(stat: &str) -> String {
    stat.split_once(' ').map_or_else(String::new, |(_, rest)| format!("1 {rest}"))
}
