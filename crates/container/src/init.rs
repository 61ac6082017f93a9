//! What a container's init process does between being cloned and becoming the program. Every step
//! is in the order in which the kernel allows it; read it from top to bottom.

use std::os::fd::{AsRawFd, OwnedFd};

use runhcs_compute::{Error, Result, Status};

use crate::cgroups::Entrances;
use crate::channel::Channel;
use crate::error::Context;
use crate::hooks::HookPoint;
use crate::namespaces::Joined;
use crate::plan::Plan;
use crate::proc::OwnDescriptors;
use crate::rootfs::Trees;
use crate::scheduling::{MemoryPolicy, Personality};
use crate::seccomp::{Filter, Moment};
use crate::spawn::{Kept, join_all};
use crate::{barrier, ids, namespaces, network, program, rootfs, terminal};

/// What init inherits from the creating process.
pub(crate) struct Inherited {
    pub channel: Channel,
    pub fifo: OwnedFd,
    pub trees: Trees,
}

/// Sets up the container, waits for `start` and becomes the program. Never returns.
pub(crate) fn run(plan: &mut Plan<'_>, mut inherited: Inherited, joined: Joined) -> ! {
    let outcome = OwnDescriptors::open().and_then(|descriptors| {
        let path = set_up(plan, &mut inherited, joined)?;
        // From here on the creating process may be gone: the FIFO is the line.
        inherited.channel.go(0)?;
        Ok((path, descriptors))
    });
    let (path, descriptors) = match outcome {
        Ok(ready) => ready,
        Err(error) => {
            inherited.channel.fail(&error);
            exit();
        }
    };
    // It may wait long, and nothing of this is the container's business.
    drop(inherited.channel);
    // The descriptors were opened before `/proc` became one that the image may have brought.
    let Ok(line) = barrier::wait(&inherited.fifo, &descriptors) else { exit() };
    drop((inherited.fifo, descriptors));
    let error = match begin(plan) {
        Ok(()) => plan.program.execute(&path),
        Err(error) => error,
    };
    barrier::report(line, &error);
    exit()
}

/// The descriptors that init uses.
pub(crate) fn kept(plan: &Plan<'_>, inherited: &Inherited) -> Kept {
    let stdio = plan.options.stdio.iter().flat_map(|s| [&s.stdin, &s.stdout, &s.stderr]);
    let console = plan.options.console_socket.iter();
    let own = [inherited.channel.as_raw_fd(), inherited.fifo.as_raw_fd()].into_iter();
    let own = own
        .chain(inherited.trees.descriptors())
        .chain(stdio.chain(console).map(AsRawFd::as_raw_fd));
    Kept { own: own.collect(), preserved: plan.options.inherited_fds }
}

/// Everything up to the point where only `start` is missing. Returns the program's path.
fn set_up(
    plan: &mut Plan<'_>,
    inherited: &mut Inherited,
    joined: Joined,
) -> Result<std::ffi::CString> {
    let mut groups = Groups::Outside;
    if plan.has_early_hooks() {
        groups.enter(plan, &mut inherited.channel)?;
        inherited.channel.go(0)?;
    }
    join_all(&joined)?;
    // Ways of the host into its namespaces: not kept longer than they are used.
    drop(joined);
    // Meanwhile the creating process writes the id mappings and runs the hooks that want them and
    // the control groups.
    let pid = inherited.channel.wait()?;
    let foreign = plan.root.foreign.receive(&mut inherited.channel)?;
    if plan.namespaces.has(libc::CLONE_NEWUSER) {
        become_root()?;
    }
    if !plan.may_mknod {
        plan.credentials.may_set_groups = ids::may_set_groups();
    }
    hide()?;
    rustix::process::setsid().context(|| "start a session".into())?;
    if plan.namespaces.is_new(libc::CLONE_NEWNET) {
        network::loopback_up()?;
    }
    set_names(plan)?;
    let mut trees = std::mem::take(&mut inherited.trees);
    trees.extend(foreign);
    // Making groups takes time, so the creating process does that while mounts are made.
    let settle = || groups.settle(plan, &mut inherited.channel);
    let root = plan.root.assemble(&plan.cgroup, &trees, plan.may_mknod, settle)?;
    drop(trees);
    plan.run_hooks(HookPoint::CreateContainer, Status::Creating, pid)?;
    // By way of procfs, which is still the caller's own.
    plan.sysctls.write()?;
    if !plan.options.no_new_keyring {
        plan.labels.with_keys(program::new_session_keyring)?;
    }
    plan.labels.apply()?;
    plan.root.enter(&root, plan.options.no_pivot)?;
    set_up_stdio(plan)?;
    terminal::give_stdio(plan.process);
    plan.root.make_working_directory(&root, plan.process.cwd())?;
    plan.root.protect(&root)?;
    drop(root);
    plan.credentials.apply_limits()?;
    plan.scheduling.apply()?;
    plan.personality.map_or(Ok(()), Personality::apply)?;
    plan.memory_policy.as_ref().map_or(Ok(()), MemoryPolicy::apply)?;
    program::close_on_exec(plan.options.inherited_fds)?;
    program::forget_signals();
    plan.program.look_home_up(plan.process.user().uid())?;
    plan.program.enter_cwd()?;
    if let Some(filter) = plan.filter_at(Moment::Privileged) {
        filter.install(&mut inherited.channel)?;
    }
    plan.credentials.apply()?;
    let path = plan.program.find()?;
    if let Some(filter) = plan.filter_at(Moment::Attended) {
        filter.install(&mut inherited.channel)?;
    }
    Ok(path)
}

/// How far init is into its control groups.
enum Groups {
    Outside,
    Entered,
    /// They are the root of its cgroup namespace, if it has one of its own.
    Settled,
}

impl Groups {
    /// Waits until the groups are made, and enters them.
    fn enter(&mut self, plan: &Plan<'_>, channel: &mut Channel) -> Result<()> {
        Entrances::receive(&plan.cgroup, channel)?.enter()?;
        *self = Self::Entered;
        Ok(())
    }

    /// Enters them unless it has. Everything that follows happens within them.
    fn settle(&mut self, plan: &Plan<'_>, channel: &mut Channel) -> Result<()> {
        if matches!(self, Self::Outside) {
            self.enter(plan, channel)?;
        }
        // After the move, so that the container's own group is its root (cgroup_namespaces(7)).
        if matches!(self, Self::Entered) && plan.namespaces.is_new(libc::CLONE_NEWCGROUP) {
            namespaces::unshare_cgroup()?;
        }
        *self = Self::Settled;
        Ok(())
    }
}

/// What is left to do after `start`.
fn begin(plan: &Plan<'_>) -> Result<()> {
    plan.filter_at(Moment::Last).map_or(Ok(()), Filter::install_unattended)?;
    // Programs of the image: they are filtered as its other programs are.
    plan.run_hooks(HookPoint::StartContainer, Status::Created, std::process::id())
}

/// The runtime's own memory and descriptors are nobody's business (CVE-2019-5736).
pub(crate) fn hide() -> Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context(|| "hide the process from the container".into())
}

/// In a new user namespace one begins as nobody.
pub(crate) fn become_root() -> Result<()> {
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .context(|| "become group 0 of the user namespace".into())?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .context(|| "become user 0 of the user namespace".into())
}

fn set_names(plan: &Plan<'_>) -> Result<()> {
    let spec = plan.options.spec;
    if let Some(name) = spec.hostname().as_deref().filter(|name| !name.is_empty()) {
        rustix::system::sethostname(name.as_bytes())
            .context(|| format!("set the host name to {name:?}"))?;
    }
    if let Some(name) = spec.domainname().as_deref().filter(|name| !name.is_empty()) {
        rustix::system::setdomainname(name.as_bytes())
            .context(|| format!("set the domain name to {name:?}"))?;
    }
    Ok(())
}

fn set_up_stdio(plan: &mut Plan<'_>) -> Result<()> {
    if plan.process.terminal() == Some(true) {
        let console = plan.options.console_socket.take();
        let console = console.ok_or_else(|| {
            Error::failed("set up the terminal", "no console socket was given to send it to")
        })?;
        let slave = terminal::set_up(plan.process, &console)?;
        return rootfs::bind_console(&slave);
    }
    match plan.options.stdio.take() {
        Some(stdio) => terminal::install([&stdio.stdin, &stdio.stdout, &stdio.stderr]),
        None => Ok(()),
    }
}

/// Ends this process without running what the creating process registered for its own end.
pub(crate) fn exit() -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(1) }
}
