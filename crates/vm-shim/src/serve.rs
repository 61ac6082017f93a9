//! `serve`: the life of the VM shim.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, bail};
use runhcs_protocol::guest::{self, Request};
use runhcs_protocol::shim::{Reply, VmEnd};
use runhcs_uvm::{Launch, deadline};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::agent::NoReply;
use crate::ending::Ending;
use crate::machine::Machine;
use crate::pod::Pod;
use crate::server::{self, Client};
use crate::verdict::Verdict;
use crate::vm_dir::VmDir;
use crate::watch::watch;
use crate::{daemon, log};

/// The most that a launch document may hold, in bytes.
const MAX_LAUNCH: u64 = 1 << 20;

/// Becomes a daemon, brings a VM up and serves it until it ends.
///
/// # Errors
/// What ended the shim, if nobody asked for it; the launching process or the log has it already.
pub fn run() -> anyhow::Result<()> {
    daemon::detach()?;
    let verdict = Verdict::take()?;
    let (launch, log) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => {
            verdict.fail(&error);
            return Err(error);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, live(launch, log, verdict))
}

fn prepare() -> anyhow::Result<(Launch, log::Options)> {
    let mut document = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_LAUNCH)
        .read_to_end(&mut document)
        .context("cannot read the launch document")?;
    let launch: Launch =
        serde_json::from_slice(&document).context("the launch document is malformed")?;
    let log = log::Options {
        vm: format!("{}@vm", launch.host_id),
        log_level: launch.log_level.clone(),
        log_json: launch.log_json,
    };
    log::init(&log)?;
    for group in &launch.cgroups {
        enter(group).with_context(|| format!("cannot enter the cgroup {}", group.display()))?;
    }
    Ok((launch, log))
}

/// Has this process, which has one thread, and what it starts count in a control group.
fn enter(group: &Path) -> std::io::Result<()> {
    // Of version 1: to move a thread, the kernel waits for no others (cgroups(7)).
    let tasks = group.join("tasks");
    let file = if tasks.exists() { tasks } else { group.join("cgroup.procs") };
    std::fs::OpenOptions::new().write(true).open(file)?.write_all(b"0")
}

async fn live(launch: Launch, log: log::Options, verdict: Verdict) -> anyhow::Result<()> {
    let ending = Ending::new();
    let booted = tokio::select! {
        booted = boot(&launch, &log, &ending) => booted,
        watched = verdict.abandoned() => {
            watched.and_then(|()| bail!("the launching process has gone away"))
        }
    };
    let Booted { dir, watch, listener, machine, pod } = match booted {
        Ok(booted) => booted,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "there is no virtual machine");
            verdict.fail(&error);
            return Err(error);
        }
    };
    verdict.succeed()?;
    let (shutdown, requests) = mpsc::channel(1);
    tokio::task::spawn_local(server::serve(listener, pod.clone(), shutdown));
    until_the_end(&dir, &watch, machine, &pod, requests).await
}

/// A VM that is up.
struct Booted {
    dir: Rc<VmDir>,
    watch: AsyncFd<OwnedFd>,
    listener: tokio::net::UnixListener,
    machine: Machine,
    pod: Rc<Pod>,
}

async fn boot(launch: &Launch, log: &log::Options, ending: &Ending) -> anyhow::Result<Booted> {
    let dir = Rc::new(VmDir::claim(&launch.dir)?);
    let watch =
        watch(dir.watch()?, Interest::READABLE).context("cannot watch the VM's directory")?;
    let listener = server::listener(dir.listen()?)?;
    let (machine, pod) = Machine::boot(launch, log, &dir, ending).await?;
    Ok(Booted { dir, watch, listener, machine, pod })
}

async fn until_the_end(
    dir: &VmDir,
    watch: &AsyncFd<OwnedFd>,
    mut machine: Machine,
    pod: &Pod,
    mut shutdown: mpsc::Receiver<Client>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let (client, end) = tokio::select! {
        what = machine.ended(&pod.ending) => {
            tracing::error!(reason = what, "the virtual machine is lost");
            if let Err(error) = dir.write_obituary(&what) {
                tracing::warn!(error = format!("{error:#}"), "commands won't know why");
            }
            pod.ending.declare(VmEnd::Lost(what.clone()));
            machine.clear().await;
            give_clients_time().await;
            bail!(what);
        }
        client = shutdown.recv() => (client, VmEnd::ShutDown),
        _ = terminate.recv() => (None, VmEnd::ShutDown),
        gone = vanished(dir, watch) => {
            gone?;
            let what = format!("the VM's directory {} is gone", dir.path().display());
            tracing::warn!("{what}");
            (None, VmEnd::Lost(what))
        }
    };
    tracing::info!("shutting the virtual machine down");
    let synced = tokio::select! {
        synced = pod.agent.call(&Request::Sync, deadline::of(&Request::Sync)) => synced,
        reason = pod.ending.suspected() => Err(NoReply::Ended(VmEnd::Lost(reason))),
    };
    if let Err(error) = synced {
        tracing::warn!(?error, "the guest may not have written everything back");
    }
    pod.ending.declare(end);
    machine.quit().await;
    give_clients_time().await;
    if let Some(mut client) = client {
        let done = client.send(&Reply::Guest(guest::Reply::Done), &[]).await;
        if let Err(error) = done {
            tracing::debug!(error = format!("{error:#}"), "nobody waits for the shutdown");
        }
    }
    Ok(())
}

/// Lets the tasks that serve clients tell them that the VM has ended. They need no input for that
/// but a turn each.
async fn give_clients_time() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

/// Returns when the directory is no longer ours.
async fn vanished(dir: &VmDir, watch: &AsyncFd<OwnedFd>) -> anyhow::Result<()> {
    let mut events = [0; 4096];
    while dir.is_ours() {
        let mut ready = watch.readable().await.context("cannot watch the VM's directory")?;
        // What has happened is seen by looking; this only empties the queue.
        let _ = ready.try_io(|watch| Ok(rustix::io::read(watch.get_ref(), &mut events)?));
    }
    Ok(())
}
