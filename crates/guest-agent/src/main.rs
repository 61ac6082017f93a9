//! PID 1 of the utility VM: brings the guest up, then runs containers for the host.
//!
//! One thread. Engine calls that may block run in forked children, so the agent goes on serving;
//! a fork is safe because there is no other thread whose locks could be held.

mod boot;
mod devices;
mod disks;
mod engine;
mod entropy;
mod hardware;
mod inner_mounts;
mod log;
mod namespaces;
mod network;
mod oom;
mod processes;
mod reaper;
mod requests;
mod scratch;
mod server;
mod streams;
mod template;
mod volumes;

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use runhcs_protocol::guest::Hello;
use runhcs_protocol::{CONTROL_PORT, STREAM_PORT, VERSION};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

use server::Server;
use template::Woken;

fn main() {
    boot::open_console();
    if let Err(error) = run() {
        // The host may be gone; the console is what is left.
        eprintln!("runhcs-guest-agent: {error:#}");
    }
    boot::power_off();
}

fn run() -> Result<()> {
    let (level, control) = match Woken::from_arguments()? {
        Some(woken) => (woken.log_level, Some(woken.control)),
        None => {
            boot::bring_up()?;
            let command_line =
                std::fs::read_to_string("/proc/cmdline").context("read /proc/cmdline")?;
            if template::is_wanted(&command_line) {
                match template::be_saved()? {}
            }
            (log::level(&command_line), None)
        }
    };
    boot::join_host()?;
    log::init(level);
    let local = tokio::task::LocalSet::new();
    local.block_on(&event_loop()?, serve(control))
}

/// An event loop in this thread.
fn event_loop() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("make the event loop")
}

/// Connects to the host.
async fn dial_host() -> Result<VsockStream> {
    VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, CONTROL_PORT))
        .await
        .with_context(|| format!("dial the host on vsock port {CONTROL_PORT}"))
}

/// How this agent greets the host.
fn hello() -> Hello {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    Hello { version: VERSION, kernel }
}

/// Serves the host, over the connection to it if there is one already.
async fn serve(control: Option<OwnedFd>) -> Result<()> {
    let server = Rc::new(Server::new()?);
    let streams = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, STREAM_PORT))
        .with_context(|| format!("listen on vsock port {STREAM_PORT}"))?;
    let control = match control {
        Some(control) => VsockStream::from(control),
        None => dial_host().await?,
    };
    let accepting = Rc::clone(&server);
    tokio::task::spawn_local(async move {
        while let Ok((stream, peer)) = streams.accept().await {
            // Nobody in the guest gets at a process's streams.
            if peer.cid() == VMADDR_CID_HOST {
                let (reader, writer) = tokio::io::split(stream);
                tokio::task::spawn_local(streams::serve(Rc::clone(&accepting), reader, writer));
            }
        }
    });
    let lines = log::to_host();
    tracing::debug!(since_boot = ?since_boot(), "the guest is up");
    let (reader, writer) = tokio::io::split(control);
    requests::serve(server, hello(), reader, writer, lines).await
}

/// How long ago the guest's kernel started.
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}
