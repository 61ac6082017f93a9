//! From the kernel's first user process to a system that containers can run in. Every millisecond
//! here is waited for by `create`, so only what is needed is done, and nothing is searched for.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};
use runhcs_protocol::{GUEST_SHARE, SHARE_TAG};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount};

/// Modules to load, one path a line, in an order that satisfies their dependencies.
const MODULE_LIST: &str = "/modules.load";
/// The same for those that a VM with network devices needs.
pub const NETWORK_MODULE_LIST: &str = "/modules.network";
/// The same for those that a VM with disks needs.
pub const DISK_MODULE_LIST: &str = "/modules.disk";
/// The same for those that containers with tunnels need.
pub const TUN_MODULE_LIST: &str = "/modules.tun";

/// Makes the console this process's stdio, in case the kernel found none to open.
pub fn open_console() {
    let _ = mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, None::<&std::ffi::CStr>);
    if let Ok(console) = rustix::fs::open("/dev/console", OFlags::RDWR, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&console);
        let _ = rustix::stdio::dup2_stdout(&console);
        let _ = rustix::stdio::dup2_stderr(&console);
    }
}

/// Brings up what the guest has without a host: what VMs that are resumed from a template share.
pub fn bring_up() -> Result<()> {
    load_modules(MODULE_LIST)?;
    leave_rootfs()?;
    mount_all()?;
    own_cgroup()?;
    rustix::system::sethostname(b"runhcs").context("set the host name")
}

/// Brings up the rest, with the VM's devices.
pub fn join_host() -> Result<()> {
    // What an image marks set-user-id is its containers' business; their own mounts say more.
    mount(SHARE_TAG, GUEST_SHARE, "virtiofs", MountFlags::empty(), None::<&std::ffi::CStr>)
        .with_context(|| format!("mount virtiofs on {GUEST_SHARE}"))?;
    runhcs_container::loopback_up()?;
    // SAFETY: the agent has one thread, and none of them reads the environment concurrently.
    unsafe { std::env::set_var("PATH", "/usr/sbin:/usr/bin:/sbin:/bin") };
    Ok(())
}

/// Loads the modules of a list, but for those that are loaded.
pub fn load_modules(list: &str) -> Result<()> {
    let list = std::fs::read_to_string(list).with_context(|| format!("read {list}"))?;
    for path in list.lines().filter(|line| !line.is_empty()) {
        let module = std::fs::File::open(path).with_context(|| format!("open module {path}"))?;
        match rustix::system::finit_module(module.as_fd(), c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("load module {path}")),
        }
    }
    Ok(())
}

/// pivot_root(2) refuses to leave the kernel's first root, which the initramfs is. So the agent
/// moves to a mount of its own that shows the same files.
fn leave_rootfs() -> Result<()> {
    let (new, none) = ("/run", None::<&std::ffi::CStr>);
    rustix::mount::mount_bind("/", new).context("bind-mount the root")?;
    rustix::process::chdir(new).context("enter the new root")?;
    rustix::mount::mount_move(".", "/").context("move the new root to /")?;
    rustix::process::chroot(".").context("change the root")?;
    rustix::process::chdir("/").context("enter the new root")?;
    // The first mount of /dev is below the new root now.
    mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, none).context("mount /dev")
}

fn mount_all() -> Result<()> {
    let strict = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounts: [(&str, &str, MountFlags, &std::ffi::CStr); 7] = [
        ("proc", "/proc", strict, c""),
        ("sysfs", "/sys", strict, c""),
        ("cgroup2", "/sys/fs/cgroup", strict, c""),
        ("devpts", "/dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=0620,ptmxmode=0666"),
        ("tmpfs", "/dev/shm", MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777"),
        ("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755"),
        ("tmpfs", "/tmp", MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777"),
    ];
    for (kind, target, flags, data) in mounts {
        std::fs::create_dir_all(target).with_context(|| format!("make {target}"))?;
        mount(kind, target, kind, flags, data)
            .with_context(|| format!("mount {kind} on {target}"))?;
    }
    std::fs::create_dir_all(GUEST_SHARE).with_context(|| format!("make {GUEST_SHARE}"))?;
    std::fs::create_dir_all(requests_directory()).context("make the containers' directory")
}

/// Where containers have their private directories.
pub fn requests_directory() -> &'static Path {
    Path::new("/run/runhcs/containers")
}

/// A group with processes can't have groups with limits below it, so the agent moves to a leaf.
fn own_cgroup() -> Result<()> {
    let group = Path::new("/sys/fs/cgroup/agent");
    std::fs::create_dir(group).context("make the agent's cgroup")?;
    std::fs::write(group.join("cgroup.procs"), "1").context("enter the agent's cgroup")
}

/// Writes back what is cached and ends the VM. Never returns.
pub fn power_off() -> ! {
    rustix::fs::sync();
    // Not every machine type can be powered off, but each ends when told to restart, for the
    // host runs it with -no-reboot.
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    // The kernel panics, and so restarts, when its first process ends.
    std::process::exit(1)
}
