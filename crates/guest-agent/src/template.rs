//! Being saved before there are devices, and waking up as one of many VMs.
//!
//! Whatever the agent does before it is saved, each VM of the template finds done. Whatever it
//! draws at random before it is saved, each VM would share; so it draws nothing, and once the
//! generator has a seed of this VM's own, the agent executes itself anew, for a process draws some
//! secrets (stack protector, address space, hash keys) when it begins.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use runhcs_protocol::agent_log::LogLevel;
use runhcs_protocol::frame;
use runhcs_protocol::template::{READY, TEMPLATE_WORD, Wake};
use rustix::io::FdFlags;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use rustix::time::{ClockId, Timespec, clock_settime};
use tokio::io::AsyncWriteExt;

use crate::{boot, dial_host, entropy, event_loop, hello, requests};

/// The driver of virtio devices on the platform bus, where slots can be bound to it.
const DRIVER: &str = "/sys/bus/platform/drivers/virtio-mmio/bind";
/// What ACPI calls the slots, without their number (virtio-mmio, "QEMU virtio").
const SLOT: &str = "LNRO0005";
/// Free memory that is left alone, in bytes: the kernel never has to search for some.
const RESERVE: u64 = 24 << 20;
/// The first argument of an agent that was woken.
const WOKEN: &str = "--woken";

/// Whether this VM is to become a template.
pub fn is_wanted(command_line: &str) -> bool {
    command_line.split_ascii_whitespace().any(|word| word == TEMPLATE_WORD)
}

/// Waits until the host has saved this VM and resumed one from it, and goes on as the agent of
/// that one: by executing itself anew.
///
/// # Errors
/// Whatever keeps it from that; the VM has to end then.
pub fn be_saved() -> Result<Infallible> {
    // Those of disks are larger and seldom needed.
    boot::load_modules(boot::NETWORK_MODULE_LIST)?;
    clean_memory();
    wait_for_wake().context("wait on the console")?;
    bind_devices()?;
    let runtime = event_loop()?;
    let (control, wake) = runtime.block_on(async {
        let mut stream = dial_host().await?;
        let greeting = frame::encode(&hello())?;
        AsyncWriteExt::write_all(&mut stream, &greeting).await.context("greet the host")?;
        let wake: Option<Wake> = requests::read(&mut stream, frame::MAX_REPLY).await?;
        let control = stream.as_fd().try_clone_to_owned().context("keep the connection")?;
        anyhow::Ok((control, wake.context("the host hung up")?))
    })?;
    drop(runtime);
    entropy::reseed(wake.seed)?;
    let second = 1_000_000_000;
    let now = Timespec {
        tv_sec: (wake.time / second).cast_signed(),
        tv_nsec: (wake.time % second).cast_signed(),
    };
    clock_settime(ClockId::Realtime, now).context("set the clock")?;
    begin_anew(&control, wake.log_level)
}

/// Touches free memory, which the kernel clears for that, and gives it back: what is all zeroes
/// needn't be saved.
fn clean_memory() {
    let info = rustix::system::sysinfo();
    let free = info.freeram * u64::from(info.mem_unit);
    let Ok(size) = usize::try_from(free.saturating_sub(RESERVE)) else { return };
    let mut memory = vec![0u8; size];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
        page[0] = 0;
    }
    std::hint::black_box(&mut memory);
}

/// Says that it is ready, and reads one byte.
fn wait_for_wake() -> Result<()> {
    let mut console = std::fs::File::options().read(true).write(true).open("/dev/console")?;
    let mut settings = tcgetattr(&console)?;
    let usual = settings.clone();
    // No waiting for a line's end, no echo.
    settings.make_raw();
    tcsetattr(&console, OptionalActions::Flush, &settings)?;
    console.write_all(format!("{READY}\r\n").as_bytes())?;
    console.read_exact(&mut [0])?;
    tcsetattr(&console, OptionalActions::Flush, &usual)?;
    Ok(())
}

/// Has the driver look into the slots again. They were empty at boot; the first ones hold devices
/// now.
fn bind_devices() -> Result<()> {
    for number in 0.. {
        let name = format!("{SLOT}:{number:02x}");
        if !Path::new("/sys/bus/platform/devices").join(&name).exists() {
            break;
        }
        match std::fs::write(DRIVER, &name) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) && number > 0 => break,
            Err(error) => return Err(error).with_context(|| format!("bind {name} to its driver")),
        }
    }
    Ok(())
}

fn begin_anew(control: &OwnedFd, level: LogLevel) -> Result<Infallible> {
    rustix::io::fcntl_setfd(control, FdFlags::empty()).context("hand the connection over")?;
    let number = control.as_raw_fd().to_string();
    let error = Command::new("/init").arg(WOKEN).arg(number).arg(level.name()).exec();
    Err(error).context("execute the agent anew")
}

/// What an agent that was woken finds.
#[derive(Debug)]
pub struct Woken {
    /// The connection to the host.
    pub control: OwnedFd,
    /// What to log.
    pub log_level: LogLevel,
}

impl Woken {
    /// From this process's arguments; `None` if the kernel started it.
    ///
    /// # Errors
    /// If they make no sense.
    pub fn from_arguments() -> Result<Option<Self>> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [first, number, level] = arguments.as_slice() else { return Ok(None) };
        if first != WOKEN {
            return Ok(None);
        }
        let number: RawFd = number.parse().context("malformed descriptor")?;
        // SAFETY: it is only looked at, and the call fails if it isn't open.
        let inherited = unsafe { BorrowedFd::borrow_raw(number) };
        if number <= 2 || rustix::io::fcntl_getfd(inherited).is_err() {
            bail!("descriptor {number} is no connection");
        }
        // SAFETY: the agent before this one left it open for this one alone to own.
        let control = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::fcntl_setfd(&control, FdFlags::CLOEXEC).context("take the connection")?;
        let log_level = LogLevel::from_name(level).context("malformed log level")?;
        Ok(Some(Self { control, log_level }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_itself_counts() {
        assert!(is_wanted("quiet runhcs.template x=1"));
        assert!(!is_wanted("quiet runhcs.template=0 xrunhcs.template"));
    }
}
