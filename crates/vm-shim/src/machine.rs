//! A utility VM: everything it is made of, from boot to end.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use runhcs_protocol::CONTROL_PORT;
use runhcs_protocol::shim::Info;
use runhcs_uvm::{Launch, files};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::oneshot;

use crate::agent::{self, Agent, Greeted};
use crate::child::Child;
use crate::console::Console;
use crate::disks::Disks;
use crate::growth::Growth;
use crate::inherit::Inherit;
use crate::lost::Lost;
use crate::network::{Carried, Link, MICROVM_DEVICES};
use crate::pod::{Hardware, Pod};
use crate::qemu::{self, Monitor};
use crate::share::Namespace;
use crate::tail::Tail;
use crate::vm_dir::VmDir;
use crate::vsock::Vsock;
use crate::{log, sockets, virtiofs};

/// What Linux writes when it gives up; a long account of its state follows.
const PANIC: &str = "Kernel panic";
/// How many of the console's last lines an error shows.
const CONSOLE_LINES: usize = 8;
/// When something of the VM ends, QEMU's end may be the cause and be seen this much later.
const QEMU_FIRST: Duration = Duration::from_millis(200);
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
    /// Boots the VM and waits until the guest agent is there.
    ///
    /// # Errors
    /// What is missing or failed, and what to do about it. Nothing of the VM is left then.
    pub async fn boot(
        launch: &Launch,
        log: &log::Options,
        dir: &Rc<VmDir>,
        lost: &Lost,
    ) -> anyhow::Result<(Self, Rc<Pod>)> {
        let started = Instant::now();
        let options = &launch.options;
        let program = qemu::find(&options.qemu)?;
        qemu::check_image("kernel", &options.kernel)?;
        qemu::check_image("initramfs", &options.initramfs)?;
        let accelerator = qemu::accelerator::choose(options.accelerator)?;
        tracing::debug!(accelerator = accelerator.name(), elapsed = ?started.elapsed(), "checked");

        let observer = Observer {
            console: Tail::default(),
            messages: Tail::default(),
            console_log: dir.path().join(files::CONSOLE),
        };
        let (console, console_socket) =
            Console::open(dir, launch.console.as_deref(), observer.console.clone())?;
        let (monitor_socket, qemu_monitor) = sockets::pair()?;

        let limit = match options.machine {
            runhcs_spec::Machine::Microvm => MICROVM_DEVICES,
            runhcs_spec::Machine::Q35 => usize::MAX,
        };
        let network = launch.network.as_deref().map(|path| Carried::take(path, limit));
        let mut network = network.transpose()?;
        let devices = network.iter().flat_map(|(carried, _)| carried.devices());
        let namespace = Namespace::enter(dir.path())?;
        let private_dir = namespace.private_dir();
        let root = qemu::Root::build(
            private_dir.join("qemu"),
            &program,
            &options.kernel,
            &options.initramfs,
            accelerator.device(),
        )?;
        let life = dir.life()?;
        let (virtiofs, virtiofs_socket) =
            virtiofs::spawn(&namespace.share_dir(), private_dir, log, Inherit::new(&life)?)?;
        let mut virtiofs = Child::new("the virtiofs daemon", virtiofs)?;
        let (listener, vsock_socket) = sockets::waiting_connection(&private_dir.join("vsock"))?;
        let vsock =
            Vsock::start(listener, CONTROL_PORT).context("cannot start the vsock device")?;

        let qemu_sockets = qemu::Sockets {
            console: console_socket,
            monitor: qemu_monitor,
            vsock: vsock_socket,
            virtiofs: virtiofs_socket,
            network: devices.filter_map(|device| Some((device, device.tap()?))).collect(),
        };
        let (messages, qemu_messages) = std::io::pipe().context("cannot make a pipe")?;
        let child =
            qemu::spawn(&program, &root, launch, accelerator, &qemu_sockets, &life, qemu_messages)?;
        let mut qemu = Child::new("QEMU", child)?;
        // QEMU's ends are QEMU's alone, so that they end with it.
        drop((qemu_sockets, life));
        if let Some((carried, _)) = &mut network {
            carried.handed_over();
        }
        tokio::task::spawn_local(console.run());
        tokio::task::spawn_local(log_messages(messages.into(), observer.messages.clone()));
        tracing::debug!(elapsed = ?started.elapsed(), "devices and QEMU started");

        let limit = Duration::from_secs(options.boot_timeout_seconds);
        let throttles = options.disk_bandwidth.is_some() || options.disk_iops.is_some();
        let agent = boot_to_agent(monitor_socket, throttles, vsock.accepted);
        let booted = tokio::select! {
            booted = tokio::time::timeout(limit, agent) => {
                booted.unwrap_or_else(|_| {
                    Err(anyhow!("the virtual machine didn't come up within {} s", limit.as_secs()))
                })
            }
            ended = qemu.ended() => Err(anyhow!("{ended} before the guest was up")),
            ended = virtiofs.ended() => Err(anyhow!("{ended} before the guest was up")),
        };
        let (monitor, greeted) = match booted {
            Ok((monitor, greeted)) => (Rc::new(monitor), greeted),
            Err(error) => {
                // If QEMU has ended, all else is a consequence.
                let ended = tokio::time::timeout(QEMU_FIRST, qemu.ended()).await;
                let what = ended.map_or(error, |ended| anyhow!("{ended} before the guest was up"));
                bail!("{}", observer.explain(&format!("{what:#}")).await)
            }
        };
        // Everything that QEMU needs of the host's files is loaded, and nothing in the guest but
        // our own programs has run so far.
        root.strip()?;
        let share = namespace.close()?;
        let kernel = greeted.hello.kernel.clone();
        tracing::info!(
            accelerator = accelerator.name(),
            kernel,
            elapsed = ?started.elapsed(),
            "the virtual machine is up"
        );
        let info = Info {
            pid: std::process::id(),
            accelerator: accelerator.name().to_owned(),
            kernel,
            console_log: observer.console_log.clone(),
        };
        let agent = Agent::start(greeted, lost.clone());
        let network = match network {
            Some((carried, network)) => Some(Link::start(agent.clone(), carried, network).await?),
            None => None,
        };
        tracing::debug!(elapsed = ?started.elapsed(), "the network is set up");
        let hardware = Hardware {
            disks: Disks::new(monitor.clone()),
            growth: Growth::new(monitor.clone(), agent.clone(), options),
        };
        let pod =
            Pod::new(agent, vsock.dialer, lost.clone(), info, share, hardware, network.clone());
        let machine = Self { qemu, virtiofs, vsock_ended: vsock.ended, monitor, observer, network };
        Ok((machine, Rc::new(pod)))
    }

    /// Waits until a part of the VM has ended, or `lost` says so; says what happened.
    pub async fn ended(&mut self, lost: &Lost) -> String {
        let what = tokio::select! {
            // QEMU first: when it ends, so do its devices.
            biased;
            what = self.qemu.ended() => what,
            what = self.virtiofs.ended() => self.cause(what).await,
            _ = &mut self.vsock_ended => self.cause("the vsock device ended".to_owned()).await,
            what = lost.wait() => self.cause(what).await,
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

async fn boot_to_agent(
    monitor: std::os::unix::net::UnixStream,
    throttles: bool,
    accepted: oneshot::Receiver<std::os::unix::net::UnixStream>,
) -> anyhow::Result<(Monitor, Greeted)> {
    let monitor = Monitor::open(monitor, throttles).await?;
    let control = accepted.await.context("the vsock device ended")?;
    let greeted = agent::greet(control).await?;
    Ok((monitor, greeted))
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
        let lines = self.console.lines(CONSOLE_LINES);
        if lines.is_empty() {
            text += "; the guest's console is empty";
        } else {
            text += &format!("; the guest's console ({}) ends with:", self.console_log.display());
        }
        for line in lines {
            text += &format!("\n    {line}");
        }
        text
    }
}

/// Logs what QEMU writes to standard error.
async fn log_messages(pipe: OwnedFd, tail: Tail) {
    let receiver = match tokio::net::unix::pipe::Receiver::from_owned_fd(pipe) {
        Ok(receiver) => receiver,
        Err(error) => {
            tracing::warn!(%error, "cannot read QEMU's messages");
            return;
        }
    };
    let mut lines = BufReader::new(receiver).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        tail.push(&line);
        tail.push(b"\n");
        tracing::warn!(message = %String::from_utf8_lossy(&line), "QEMU");
    }
}
