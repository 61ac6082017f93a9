//! A further process in a running container.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use oci_spec::runtime::{Process, Spec};
use runhcs_compute::{Error, Result, Status};

use crate::cgroups::{Entrances, ExecCgroup, WayIn};
use crate::channel::Channel;
use crate::child::Child;
use crate::clone::Side;
use crate::container::{Container, Seen};
use crate::credentials::Credentials;
use crate::error::{Context, invalid};
use crate::labels::Labels;
use crate::namespaces::Joined;
use crate::plan::expect;
use crate::program::{self, Program};
use crate::scheduling::{Affinity, Personality, Scheduling};
use crate::seccomp::{Filter, Moment, Watched};
use crate::spawn::{Kept, join_all, spawn};
use crate::{InheritedFds, Init, Stdio, ids, namespaces, proc, terminal};

/// A further process for a container.
#[derive(Debug)]
pub struct ExecOptions<'a> {
    /// What to run.
    pub process: &'a Process,
    /// The process's stdio, or `None` to pass on the caller's.
    pub stdio: Option<Stdio>,
    /// A connected unix socket to send the terminal's master to, if the process has a terminal.
    pub console_socket: Option<OwnedFd>,
    /// The descriptors after stderr that the process inherits.
    pub inherited_fds: InheritedFds,
    /// Where in the container's control groups it is to be.
    pub cgroup: ExecCgroup,
    /// Go on if the container is paused: the process begins when it is resumed.
    pub ignore_paused: bool,
}

impl Container {
    /// Runs a further process. It is a child of the caller and runs at once.
    ///
    /// # Errors
    /// [`Error::InvalidStatus`] unless the container runs; what kept the program from being
    /// executed.
    pub fn exec(&self, spec: &Spec, mut options: ExecOptions<'_>) -> Result<Init> {
        let allowed: &[Status] = match options.ignore_paused {
            true => &[Status::Running, Status::Created, Status::Paused],
            false => &[Status::Running, Status::Created],
        };
        let Seen { status, process: pidfd } = self.look()?;
        expect("exec in", &self.resources.id, status, allowed)?;
        let (Some(init), Some(pidfd)) = (self.init, pidfd) else {
            return Err(Error::NotFound(self.resources.id.clone()));
        };
        let terminal = options.process.terminal() == Some(true);
        if terminal != options.console_socket.is_some() {
            return Err(invalid(
                "terminal",
                "a console socket goes with a terminal, and only with one",
            ));
        }
        let credentials = Credentials::new(options.process)?;
        let labels = Labels::new(options.process)?;
        let scheduling = Scheduling::new(options.process)?;
        let of_init =
            spec.process().as_ref().and_then(|process| process.exec_cpu_affinity().as_ref());
        let affinity = options.process.exec_cpu_affinity().as_ref().or(of_init);
        let affinity = Affinity::new(affinity)?;
        let linux = spec.linux().as_ref();
        let personality = linux.and_then(|l| l.personality().as_ref());
        let personality = personality.map(Personality::new).transpose()?;
        let filter = linux.and_then(|l| l.seccomp().as_ref()).map(Filter::new).transpose()?;
        let program = Program::new(options.process, options.inherited_fds)?;
        let mut joined =
            namespaces::of_process(&init, pidfd)?.ok_or_else(|| Error::InvalidStatus {
                operation: "exec in",
                id: self.resources.id.clone(),
                status: Status::Stopped,
            })?;
        let (mut channel, theirs) = Channel::pair()?;
        let cgroup = self.cgroup();
        let WayIn { target, entrances } = cgroup.way_in(&options.cgroup, &init)?;
        let mut preparation = Preparation {
            credentials,
            labels,
            scheduling,
            affinity,
            personality,
            filter,
            program,
            entrances,
            begun: false,
        };
        let process = options.process;
        let cgroup = target.as_ref().map(AsFd::as_fd);
        let stdio = options.stdio.iter().flat_map(|s| [&s.stdin, &s.stdout, &s.stderr]);
        let own = stdio.chain(&options.console_socket).map(AsRawFd::as_raw_fd);
        let own = own.chain([theirs.as_raw_fd()]).chain(preparation.entrances.descriptors());
        let kept = Kept { own: own.collect(), preserved: options.inherited_fds };
        // SAFETY: the engine and its callers start no thread before this point.
        let side = unsafe { spawn(&mut joined, 0, cgroup, &kept, || preparation.begin(process)) }?;
        let pid = match side {
            Side::Child => {
                // Not one of those that are kept.
                std::mem::forget(channel);
                let mut channel = theirs;
                let error = preparation.run(&mut options, &mut channel, &joined);
                channel.fail(&error);
                crate::init::exit();
            }
            Side::Parent { pid } => pid,
        };
        let mut child = Child::new(pid);
        let agent = preparation.filter.as_ref().and_then(Filter::agent).cloned();
        drop((theirs, preparation));
        let process = Init::of(pid)?;
        self.cgroup().attach(pid, &options.cgroup)?;
        self.resources.rdt.as_ref().map_or(Ok(()), |group| group.add(pid))?;
        channel.go(pid)?;
        if let Some(agent) = agent {
            let (subject, status) = (&self.resources.subject, Status::Running);
            agent.introduce(&mut channel, &Watched { subject, status, init: init.pid, pid })?;
        }
        channel.wait_closed()?;
        child.keep();
        Ok(process)
    }
}

struct Preparation<'a> {
    credentials: Credentials<'a>,
    labels: Labels<'a>,
    scheduling: Scheduling,
    affinity: Affinity,
    personality: Option<Personality>,
    filter: Option<Filter>,
    program: Program,
    entrances: Entrances,
    begun: bool,
}

impl Preparation<'_> {
    /// What takes the caller's own ids and privilege. Does nothing the second time.
    fn begin(&mut self, process: &Process) -> Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        self.affinity.begin()?;
        std::mem::take(&mut self.entrances).enter()?;
        if let Some(score) = process.oom_score_adj() {
            proc::write(std::path::Path::new("self/oom_score_adj"), &score.to_string())?;
        }
        // Before the container can see this process (CVE-2016-9962).
        crate::init::hide()
    }

    /// Becomes the program; returns only what kept it from that.
    fn run(
        &mut self,
        options: &mut ExecOptions<'_>,
        channel: &mut Channel,
        joined: &Joined,
    ) -> Error {
        let begun = self.begin(options.process);
        match begun.and_then(|()| self.prepare(options, channel, joined)) {
            Ok(path) => self.program.execute(&path),
            Err(error) => error,
        }
    }

    fn prepare(
        &mut self,
        options: &mut ExecOptions<'_>,
        channel: &mut Channel,
        joined: &Joined,
    ) -> Result<std::ffi::CString> {
        channel.wait()?;
        self.affinity.end()?;
        join_all(joined)?;
        if ids::in_user_namespace() {
            self.credentials.may_set_groups = ids::may_set_groups();
        }
        rustix::process::setsid().context(|| "start a session".into())?;
        self.labels.with_keys(program::new_session_keyring)?;
        self.labels.apply()?;
        match (options.console_socket.take(), options.stdio.take()) {
            (Some(console), _) => terminal::set_up(options.process, &console).map(drop)?,
            (None, Some(stdio)) => terminal::install([&stdio.stdin, &stdio.stdout, &stdio.stderr])?,
            (None, None) => {}
        }
        terminal::give_stdio(options.process);
        self.credentials.apply_limits()?;
        self.scheduling.apply()?;
        self.personality.map_or(Ok(()), Personality::apply)?;
        program::close_on_exec(options.inherited_fds)?;
        program::forget_signals();
        self.program.look_home_up(options.process.user().uid())?;
        self.program.enter_cwd()?;
        let no_new_privileges = options.process.no_new_privileges() == Some(true);
        let privileged = |filter: &&Filter| filter.moment(no_new_privileges) == Moment::Privileged;
        if let Some(filter) = self.filter.as_ref().filter(privileged) {
            filter.install(channel)?;
        }
        self.credentials.apply()?;
        let path = self.program.find()?;
        if let Some(filter) = self.filter.as_ref().filter(|filter| !privileged(filter)) {
            filter.install(channel)?;
        }
        Ok(path)
    }
}
