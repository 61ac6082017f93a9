//! Becoming QEMU without privileges: the last steps of its process before QEMU is executed in it.
//! What is gained is in `docs/decisions/0015-confinement-of-vms.md`.

use std::ffi::OsString;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use nix::sched::CloneFlags;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount_change, mount_remount, unmount,
};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{capabilities, daemon};

/// The arguments of the process.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// A descriptor of the process that it must not outlive.
    #[arg(long)]
    pub parent: RawFd,
    /// Its root directory.
    #[arg(long)]
    pub root: PathBuf,
    /// The user and the group that it runs as.
    #[arg(long)]
    pub uid: u32,
    /// A further group, which may use the device that QEMU needs.
    #[arg(long)]
    pub group: Option<u32>,
    /// QEMU and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Gives up everything but the inherited descriptors and becomes QEMU. Returns only if that fails.
pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.parent > 2, "descriptor {} is not a process", options.parent);
    // SAFETY: nothing in this process owns a descriptor yet but standard input, output and error.
    let parent = unsafe { OwnedFd::from_raw_fd(options.parent) };
    rustix::io::fcntl_setfd(&parent, rustix::io::FdFlags::CLOEXEC)
        .context("cannot take the descriptor of the VM shim")?;
    let (program, arguments) = options.command.split_first().context("there is no QEMU to run")?;

    enter_namespaces().context("cannot enter namespaces of its own")?;
    enter_root(options).context("cannot change the root")?;
    // A core would hold the guest's memory.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("cannot forbid core dumps")?;
    capabilities::drop_bounding(&rustix::thread::CapabilitySet::empty())
        .context("cannot drop capabilities")?;
    let (uid, gid) = (Uid::from_raw(options.uid), Gid::from_raw(options.uid));
    let groups: Vec<Gid> = options.group.into_iter().map(Gid::from_raw).collect();
    setgroups(&groups).context("cannot give groups up")?;
    setresgid(gid, gid, gid).with_context(|| {
        format!("cannot become group {gid}; `vm.uid-base` in the configuration can say another")
    })?;
    // With the user the capabilities go (capabilities(7)).
    setresuid(uid, uid, uid).with_context(|| format!("cannot become user {uid}"))?;
    rustix::thread::set_no_new_privs(true).context("cannot forbid new privileges")?;
    daemon::die_with(parent.as_fd()).context("the VM shim is gone")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot execute {}", program.display()))
}

/// Of the network, of System V's IPC, and of the host's name there is nothing in them.
fn enter_namespaces() -> anyhow::Result<()> {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    nix::sched::unshare(flags)?;
    rustix::system::sethostname(b"qemu")?;
    Ok(())
}

fn enter_root(options: &Options) -> anyhow::Result<()> {
    // What the shim unmounts in QEMU's root is to go here too.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_remount(&options.root, flags, c"")?;
    rustix::process::chdir(&options.root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}
