//! `template`: boots a VM without devices, and saves it.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use runhcs_protocol::template::READY;
use runhcs_uvm::template::{
    Draft, Manifest, MemoryIndex, Stream, TemplateId, TemplateRequest, TemplateStore,
};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::{ingredients, slots};
use crate::child::Child;
use crate::qemu::{self, Monitor, accelerator};
use crate::tail::Tail;
use crate::{log, share, sockets};

/// The most that a request may hold, in bytes.
const MAX_REQUEST: u64 = 1 << 20;
/// How many of the console's last lines an error shows.
const CONSOLE_LINES: usize = 8;

/// Makes the template that standard input describes, and prints its id; else an error.
pub fn run() -> ExitCode {
    let (text, code) = match make() {
        Ok(id) => (id.to_string(), ExitCode::SUCCESS),
        Err(error) => (format!("{error:#}"), ExitCode::FAILURE),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn make() -> anyhow::Result<TemplateId> {
    let mut document = Vec::new();
    let stdin = std::io::stdin().lock();
    stdin.take(MAX_REQUEST).read_to_end(&mut document).context("cannot read the request")?;
    let request: TemplateRequest =
        serde_json::from_slice(&document).context("the request is malformed")?;
    log::init(&log::Options {
        vm: "template".to_owned(),
        log_level: request.log_level.clone(),
        log_json: request.log_json,
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    tokio::task::LocalSet::new().block_on(&runtime, save(&request))
}

async fn save(request: &TemplateRequest) -> anyhow::Result<TemplateId> {
    let options = &request.options;
    let program = qemu::find(&options.qemu)?;
    qemu::check_image("kernel", &options.kernel)?;
    qemu::check_image("initramfs", &options.initramfs)?;
    let accelerator = accelerator::choose(options.accelerator)?;
    let ingredients = ingredients(options, &program, accelerator)?;
    let draft = TemplateStore::at(&request.store).draft()?;
    let initramfs = write_initramfs(draft.directory(), &options.initramfs)?;

    share::leave_the_hosts_mounts()?;
    let mut root = qemu::Root::build(
        draft.directory().join("qemu"),
        &program,
        &options.kernel,
        &initramfs,
        accelerator.device(),
    )?;
    let user = qemu::user(options.uid_base)?;
    let memory = root.add_memory(options.memory_mib << 20, user)?;
    let (console, qemu_console) = sockets::pair()?;
    let (monitor, qemu_monitor) = sockets::pair()?;
    let mut devices = draft.devices()?;
    let arguments = qemu::for_template(options, accelerator, &qemu_console, &qemu_monitor);
    let inherited = [qemu_console.as_fd(), qemu_monitor.as_fd()];
    let messages = File::options().write(true).open("/dev/stderr");
    let messages = messages.context("cannot open standard error")?;
    let child = qemu::spawn(&program, &root, user, accelerator, &arguments, &inherited, messages)?;
    let mut qemu = Child::new("QEMU", child)?;
    drop((qemu_console, qemu_monitor));

    let limit = Duration::from_secs(options.boot_timeout_seconds);
    let started = Instant::now();
    let saving = async {
        let monitor = Monitor::open(monitor, false).await?;
        wait_until_ready(console).await?;
        tracing::info!(elapsed = ?started.elapsed(), "the template is up");
        monitor.save(devices.as_fd()).await
    };
    let saved = tokio::select! {
        saved = tokio::time::timeout(limit, saving) => saved.unwrap_or_else(|_| {
            Err(anyhow!("the virtual machine didn't come up within {} s", limit.as_secs()))
        }),
        ended = qemu.ended() => Err(anyhow!("{ended} before the guest was up")),
    };
    drop(qemu);
    root.strip()?;
    std::fs::remove_file(initramfs).context("cannot remove the template's initramfs")?;
    saved?;
    publish(draft, ingredients, &memory, &mut devices)
}

fn publish(
    draft: Draft,
    ingredients: runhcs_uvm::template::Ingredients,
    memory: &File,
    devices: &mut File,
) -> anyhow::Result<TemplateId> {
    let mut file = draft.memory()?;
    let index = MemoryIndex::save(memory, &mut file).context("cannot write the VM's memory")?;
    tracing::info!(bytes = index.saved(), of = index.size, "the memory is saved");
    let devices = Stream::of(devices).context("cannot read the devices' state")?;
    let mut created = String::new();
    SystemTime.format_time(&mut Writer::new(&mut created)).context("cannot tell the time")?;
    Ok(draft.publish(&Manifest { ingredients, created, memory: index, devices })?)
}

/// The guest's initramfs with the description of the slots before it.
fn write_initramfs(directory: &Path, guests: &Path) -> anyhow::Result<std::path::PathBuf> {
    let path = directory.join("initramfs");
    let what = || format!("cannot write {}", path.display());
    let mut content = slots::archive();
    let mut guests =
        File::open(guests).with_context(|| format!("cannot open {}", guests.display()))?;
    guests.read_to_end(&mut content).with_context(what)?;
    std::fs::write(&path, content).with_context(what)?;
    // For QEMU's user.
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).with_context(what)?;
    Ok(path)
}

async fn wait_until_ready(console: StdUnixStream) -> anyhow::Result<()> {
    console.set_nonblocking(true)?;
    let mut console = UnixStream::from_std(console)?;
    let tail = Tail::default();
    let mut buffer = vec![0; 4096];
    loop {
        let length = console.read(&mut buffer).await.context("cannot read the guest's console")?;
        if length == 0 {
            bail!("the guest ended; its console says:\n{}", tail.lines(CONSOLE_LINES).join("\n"));
        }
        tail.push(&buffer[..length]);
        if tail.find(READY).is_some() {
            return Ok(());
        }
    }
}
