//! A utility VM: everything it is made of, from boot to end.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use runhcs_protocol::CONTROL_PORT;
use runhcs_protocol::shim::Info;
use runhcs_spec::VmOptions;
use runhcs_uvm::template::{Template, TemplateId};
use runhcs_uvm::{Launch, console, files};
use rustix::thread::CapabilitySet;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::oneshot;

use crate::agent::{self, Agent, Greeted};
use crate::child::Child;
use crate::console::Console;
use crate::disks::Disks;
use crate::ending::Ending;
use crate::growth::Growth;
use crate::inherit::Inherit;
use crate::network::{Carried, Link, MICROVM_DEVICES};
use crate::pod::{Hardware, Pod};
use crate::qemu::accelerator::Usable;
use crate::qemu::{self, Monitor, Start};
use crate::share::Namespace;
use crate::tail::Tail;
use crate::template::Resuming;
use crate::vm_dir::VmDir;
use crate::vsock::{Dialer, Vsock};
use crate::{capabilities, log, sockets, template, virtiofs};

/// What Linux writes when it gives up; a long account of its state follows.
const PANIC: &str = "Kernel panic";
/// When something of the VM ends, QEMU's end may be the cause and be seen this much later.
const QEMU_FIRST: Duration = Duration::from_millis(200);
/// The most of a line of QEMU's that is logged, in bytes.
const MAX_MESSAGE: usize = 4096;
/// What the shim goes on needing once the VM's processes are started: mounts and namespaces, the
/// pod's network, and ending QEMU, which is another user.
const CAPABILITIES: CapabilitySet =
    CapabilitySet::SYS_ADMIN.union(CapabilitySet::NET_ADMIN).union(CapabilitySet::KILL);
/// How long QEMU may take to quit before it is killed.
const QUIT_DEADLINE: Duration = Duration::from_secs(1);

/// A VM's processes and devices. Dropping it ends them.
pub struct Machine {
    qemu: Child,
    virtiofs: Child,
    vsock_ended: oneshot::Receiver<()>,
    monitor: Rc<Monitor>,
    observer: Observer,
    network: Option<Rc<Link>>,
}

/// What can be said about a VM that has ended.
#[derive(Clone)]
struct Observer {
    console: Tail,
    messages: Tail,
    console_log: std::path::PathBuf,
}

impl Machine {
    /// Resumes the VM from a template if there is one that fits, else boots it, and waits until the
    /// guest agent is there.
    ///
    /// # Errors
    /// What is missing or failed, and what to do about it. Nothing of the VM is left then.
    pub async fn boot(
        launch: &Launch,
        log: &log::Options,
        dir: &Rc<VmDir>,
        ending: &Ending,
    ) -> anyhow::Result<(Self, Rc<Pod>)> {
        let started = Instant::now();
        let options = &launch.options;
        let program = qemu::find(&options.qemu)?;
        qemu::check_image("kernel", &options.kernel)?;
        qemu::check_image("initramfs", &options.initramfs)?;
        let accelerator = qemu::accelerator::choose(options.accelerator)?;
        tracing::debug!(accelerator = accelerator.name(), elapsed = ?started.elapsed(), "checked");

        let limit = match options.machine {
            runhcs_spec::Machine::Microvm => MICROVM_DEVICES,
            runhcs_spec::Machine::Q35 => usize::MAX,
        };
        let network = launch.network.as_deref().map(|path| Carried::take(path, limit));
        let mut network = network.transpose()?;
        let template = template::find(options, &program, accelerator);
        let namespace = Namespace::enter(dir.path())?;
        let plan = Plan {
            launch,
            log,
            dir,
            program: &program,
            accelerator,
            network: network.as_ref().map(|(carried, _)| carried),
            namespace: &namespace,
            started,
        };
        let up = match template {
            None => plan.start(None).await?,
            Some(template) => {
                let id = template.id.clone();
                match plan.start(Some(template)).await {
                    Ok(up) => up,
                    Err(error) => {
                        let reason = format!("{error:#}");
                        tracing::warn!(%id, reason, "the template can't be used; the VM boots");
                        plan.start(None).await?
                    }
                }
            }
        };
        capabilities::keep(CAPABILITIES).context("cannot drop capabilities")?;
        if let Some((carried, _)) = &mut network {
            carried.handed_over();
        }
        let share = namespace.close()?;
        let Up { qemu, virtiofs, vsock, monitor, greeted, observer, template } = up;
        let kernel = greeted.hello.kernel.clone();
        tracing::info!(
            accelerator = accelerator.name(),
            kernel,
            template = template.as_ref().map(tracing::field::display),
            elapsed = ?started.elapsed(),
            "the virtual machine is up"
        );
        let info = Info {
            pid: std::process::id(),
            accelerator: accelerator.name().to_owned(),
            kernel,
            network: network.as_ref().map(|(carried, _)| carried.path()),
            console_log: observer.console_log.clone(),
        };
        let agent = Agent::start(greeted, ending.clone());
        let network = match network {
            Some((carried, network)) => tokio::select! {
                link = Link::start(agent.clone(), carried, network) => Some(link?),
                reason = ending.suspected() => bail!(reason),
            },
            None => None,
        };
        tracing::debug!(elapsed = ?started.elapsed(), "the network is set up");
        let hardware = Hardware {
            disks: Disks::new(monitor.clone()),
            growth: Growth::new(monitor.clone(), agent.clone(), options),
        };
        let pod =
            Pod::new(agent, vsock.dialer, ending.clone(), info, share, hardware, network.clone());
        let machine = Self { qemu, virtiofs, vsock_ended: vsock.ended, monitor, observer, network };
        Ok((machine, Rc::new(pod)))
    }

    /// Waits until a part of the VM has ended, or somebody suspects so; says what happened.
    pub async fn ended(&mut self, ending: &Ending) -> String {
        let what = tokio::select! {
            // QEMU first: when it ends, so do its devices.
            biased;
            what = self.qemu.ended() => what,
            what = self.virtiofs.ended() => self.cause(what).await,
            _ = &mut self.vsock_ended => self.cause("the vsock device ended".to_owned()).await,
            what = ending.suspected() => self.cause(what).await,
        };
        let reason = self.monitor.shutdown_reason();
        let what = match reason.as_deref() {
            Some(reason) => format!("the guest ended ({reason}); {what}"),
            None => what,
        };
        self.observer.explain(&what).await
    }

    /// When QEMU ends, the others may be seen to end before it is.
    async fn cause(&mut self, what: String) -> String {
        let qemu = tokio::time::timeout(QEMU_FIRST, self.qemu.ended());
        qemu.await.unwrap_or(what)
    }

    /// Ends what is left of a VM that has ended.
    pub async fn clear(mut self) {
        let network = self.network.take();
        drop(self);
        // Nobody uses it any more.
        if let Some(network) = network {
            network.end().await;
        }
    }

    /// Has QEMU end in good order, or kills it.
    pub async fn quit(mut self) {
        let quitting = async {
            if let Err(error) = self.monitor.quit().await {
                tracing::debug!(error = format!("{error:#}"), "QEMU is killed");
                return;
            }
            self.qemu.ended().await;
        };
        if tokio::time::timeout(QUIT_DEADLINE, quitting).await.is_err() {
            tracing::warn!("QEMU doesn't quit; killing it");
        }
        self.clear().await;
    }
}

/// What a VM is started with.
struct Plan<'a> {
    launch: &'a Launch,
    log: &'a log::Options,
    dir: &'a Rc<VmDir>,
    program: &'a Path,
    accelerator: Usable,
    network: Option<&'a Carried>,
    namespace: &'a Namespace,
    started: Instant,
}

/// A VM whose agent has greeted.
struct Up {
    qemu: Child,
    virtiofs: Child,
    vsock: VsockInUse,
    monitor: Rc<Monitor>,
    greeted: Greeted,
    observer: Observer,
    template: Option<TemplateId>,
}

/// A vsock device that the agent has connected to.
struct VsockInUse {
    dialer: Dialer,
    ended: oneshot::Receiver<()>,
}

impl Plan<'_> {
    /// Starts the VM's processes and waits for the agent's greeting. Leaves nothing if it fails.
    async fn start(&self, template: Option<Template>) -> anyhow::Result<Up> {
        let options = &self.launch.options;
        let mut root = qemu::Root::build(
            self.namespace.private_dir().join("qemu"),
            self.program,
            &options.kernel,
            &options.initramfs,
            self.accelerator.device(),
        )?;
        let up = self.start_in(&mut root, template).await;
        // Everything that QEMU needs of the host's files is loaded, and nothing in the guest but
        // our own programs has run so far.
        let stripped = root.strip();
        let up = up?;
        stripped?;
        Ok(up)
    }

    async fn start_in(
        &self,
        root: &mut qemu::Root,
        template: Option<Template>,
    ) -> anyhow::Result<Up> {
        let Self { launch, accelerator, .. } = *self;
        let user = qemu::user(launch.options.uid_base)?;
        let id = template.as_ref().map(|template| template.id.clone());
        let network_devices = self.network.map_or(0, |carried| carried.devices().len());
        let late = qemu::Late::of(&launch.options, network_devices);
        let resuming =
            template.map(|template| Resuming::begin(template, root, user, late)).transpose()?;

        let observer = Observer {
            console: Tail::default(),
            messages: Tail::default(),
            console_log: self.dir.path().join(files::CONSOLE),
        };
        let (console, console_socket) =
            Console::open(self.dir, launch.console.as_deref(), observer.console.clone())?;
        let keyboard = console.keyboard()?;
        let (monitor_socket, qemu_monitor) = sockets::pair()?;
        let private_dir = self.namespace.private_dir();
        let life = self.dir.life()?;
        let (virtiofs, virtiofs_socket) = virtiofs::spawn(
            &self.namespace.share_dir(),
            private_dir,
            self.log,
            Inherit::new(&life)?,
        )?;
        let mut virtiofs = Child::new("the virtiofs daemon", virtiofs)?;
        let (listener, vsock_socket) = sockets::waiting_connection(&private_dir.join("vsock"))?;
        // Its threads have no need of any.
        let vsock = capabilities::without(|| Vsock::start(listener, CONTROL_PORT))
            .context("cannot start the vsock device")?;
        let Vsock { dialer, accepted, ended } = vsock;

        let devices = self.network.into_iter().flat_map(Carried::devices);
        let qemu_sockets = qemu::Sockets {
            console: console_socket,
            monitor: qemu_monitor,
            vsock: vsock_socket,
            virtiofs: virtiofs_socket,
            network: devices.filter_map(|device| Some((device, device.tap()?))).collect(),
        };
        let start = if resuming.is_some() { Start::Resume } else { Start::Boot };
        let arguments = qemu::for_vm(launch, accelerator, &qemu_sockets, start);
        let mut inherited = qemu_sockets.descriptors();
        inherited.push(life.as_fd());
        let (messages, qemu_messages) = std::io::pipe().context("cannot make a pipe")?;
        let child = qemu::spawn(
            self.program,
            root,
            user,
            accelerator,
            &arguments,
            &inherited,
            qemu_messages,
        )?;
        let mut qemu = Child::new("QEMU", child)?;
        // QEMU's ends are QEMU's alone, so that they end with it.
        drop(inherited);
        drop((qemu_sockets, life));
        tokio::task::spawn_local(console.run());
        tokio::task::spawn_local(log_messages(messages.into(), observer.messages.clone()));
        tracing::debug!(elapsed = ?self.started.elapsed(), "devices and QEMU started");

        let VmOptions { disk_bandwidth, disk_iops, .. } = launch.options;
        let throttles = disk_bandwidth.is_some() || disk_iops.is_some();
        let come_up =
            come_up(monitor_socket, throttles, accepted, resuming, keyboard, &launch.log_level);
        let limit = self.limit(start);
        let up = tokio::select! {
            up = tokio::time::timeout(limit, come_up) => {
                up.unwrap_or_else(|_| {
                    // Of the time for both, resuming may have taken some.
                    let limit = match start {
                        Start::Boot => launch.options.boot_timeout_seconds,
                        Start::Resume => limit.as_secs(),
                    };
                    Err(anyhow!("the virtual machine didn't come up within {limit} s"))
                })
            }
            ended = qemu.ended() => Err(anyhow!("{ended} before the guest was up")),
            ended = virtiofs.ended() => Err(anyhow!("{ended} before the guest was up")),
        };
        let (monitor, greeted) = match up {
            Ok(up) => up,
            Err(error) => {
                // If QEMU has ended, all else is a consequence.
                let ended = tokio::time::timeout(QEMU_FIRST, qemu.ended()).await;
                let what = ended.map_or(error, |ended| anyhow!("{ended} before the guest was up"));
                bail!("{}", observer.explain(&format!("{what:#}")).await)
            }
        };
        let vsock = VsockInUse { dialer, ended };
        Ok(Up { qemu, virtiofs, vsock, monitor, greeted, observer, template: id })
    }

    /// How long the VM may take to come up. One that doesn't resume has to have the time to boot.
    fn limit(&self, start: Start) -> Duration {
        let all = Duration::from_secs(self.launch.options.boot_timeout_seconds);
        match start {
            Start::Boot => all.saturating_sub(self.started.elapsed()),
            Start::Resume => all / 4,
        }
    }
}

/// Waits until the agent has greeted.
async fn come_up(
    monitor: std::os::unix::net::UnixStream,
    throttles: bool,
    accepted: oneshot::Receiver<std::os::unix::net::UnixStream>,
    resuming: Option<Resuming>,
    keyboard: OwnedFd,
    log_level: &str,
) -> anyhow::Result<(Rc<Monitor>, Greeted)> {
    let monitor = Monitor::open(monitor, throttles).await?;
    let resumes = resuming.is_some();
    if let Some(resuming) = resuming {
        resuming.go_on(&monitor, keyboard).await?;
    }
    let control = accepted.await.context("the vsock device ended")?;
    let mut greeted = agent::greet(control).await?;
    if resumes {
        greeted = template::wake(greeted, log_level).await?;
    }
    Ok((Rc::new(monitor), greeted))
}

impl Observer {
    /// Adds what QEMU and the guest's console said last to what happened.
    async fn explain(&self, what: &str) -> String {
        // What they said before they ended may not have been read yet.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut text = what.to_owned();
        if let Some(panic) = self.console.find(PANIC) {
            text += &format!("; {panic}");
        }
        for line in self.messages.lines(3) {
            text += &format!("; {line}");
        }
        text + &console::excerpt(self.console.all(), &self.console_log)
    }
}

/// Logs what QEMU writes to standard error, whose lines may be of any length.
async fn log_messages(pipe: OwnedFd, tail: Tail) {
    let receiver = match tokio::net::unix::pipe::Receiver::from_owned_fd(pipe) {
        Ok(receiver) => receiver,
        Err(error) => {
            tracing::warn!(%error, "cannot read QEMU's messages");
            return;
        }
    };
    let mut pipe = BufReader::new(receiver);
    loop {
        let mut line = Vec::new();
        match (&mut pipe).take(MAX_MESSAGE as u64).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        tail.push(line);
        tail.push(b"\n");
        tracing::warn!(target: log::QEMU, message = %String::from_utf8_lossy(line), "QEMU");
    }
}
