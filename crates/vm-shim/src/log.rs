//! The log: `tracing` on standard error, as text or JSON, with the VM's id on every line.
//!
//! What the guest can make us log, by its agent, by QEMU and by the devices' libraries, is bounded:
//! it must not fill the host's disk.
//!
//! Libraries log from threads of their own, where no span of ours is entered. So the id is put in
//! by the formatter and not by a span.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Json, JsonFields, Writer};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The target of lines that are the guest agent's.
pub const GUEST: &str = "guest";
/// The target of lines that are QEMU's.
pub const QEMU: &str = "qemu";

/// How much others than this program may log at once, in bytes.
const BURST: f64 = (4 << 20) as f64;
/// How much more they may log in a second, in bytes: some 24 MiB in a day.
const STEADY: f64 = 300.0;

/// What to log and how.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Options {
    /// The VM's id.
    #[arg(long)]
    pub vm: String,
    /// A `tracing` filter.
    #[arg(long)]
    pub log_level: String,
    /// Lines as JSON.
    #[arg(long)]
    pub log_json: bool,
}

impl Options {
    /// The arguments that make another process of ours log in the same way.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments =
            vec![format!("--vm={}", self.vm), format!("--log-level={}", self.log_level)];
        if self.log_json {
            arguments.push("--log-json".to_owned());
        }
        arguments
    }
}

/// Starts logging.
///
/// # Errors
/// If the filter is malformed, or this was called before.
pub fn init(options: &Options) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&options.log_level)
        .with_context(|| format!("malformed log filter {:?}", options.log_level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let (vm, budget) = (options.vm.clone(), Budget::new());
    if options.log_json {
        let format = Format::default().json().flatten_event(true);
        let format = WithVm { vm, budget, format };
        builder.fmt_fields(JsonFields::new()).event_format(format).try_init()
    } else {
        let format = WithVm { vm, budget, format: Format::default().with_ansi(false) };
        builder.with_ansi(false).event_format(format).try_init()
    }
    .map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}

/// What others than this program may still log.
struct Budget(Mutex<Account>);

struct Account {
    /// In bytes.
    left: f64,
    since: Instant,
    dropped: u64,
}

/// What is to become of a line.
#[derive(Debug, PartialEq, Eq)]
enum Ruling {
    /// It is written, after word of how many were dropped.
    Write(u64),
    Drop,
}

impl Budget {
    fn new() -> Self {
        Self(Mutex::new(Account { left: BURST, since: Instant::now(), dropped: 0 }))
    }

    /// Rules on a line of `length` bytes.
    fn rule(&self, target: &str, length: usize, now: Instant) -> Ruling {
        if target.starts_with(env!("CARGO_CRATE_NAME")) {
            return Ruling::Write(0);
        }
        let mut account = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(account.since).as_secs_f64();
        account.since = now;
        account.left = (account.left + passed * STEADY).min(BURST);
        if account.left < length as f64 {
            account.dropped += 1;
            return Ruling::Drop;
        }
        account.left -= length as f64;
        Ruling::Write(std::mem::take(&mut account.dropped))
    }
}

/// Lines with the VM's id in them, by a format of the library's.
struct WithVm<F> {
    vm: String,
    budget: Budget,
    format: F,
}

/// Where the VM's id goes in a line.
trait Lines {
    /// A line, as the library makes it, with the id.
    fn add_vm(line: &str, vm: &str) -> String;
    /// Word of lines that were dropped.
    fn notice(dropped: u64, vm: &str) -> String;
}

impl Lines for Format<Full, SystemTime> {
    fn add_vm(line: &str, vm: &str) -> String {
        format!("{line} vm={vm}")
    }

    fn notice(dropped: u64, vm: &str) -> String {
        Self::add_vm(&notice(dropped), vm)
    }
}

// Ids and the notice hold nothing that JSON would have escaped.
impl Lines for Format<Json, SystemTime> {
    fn add_vm(line: &str, vm: &str) -> String {
        match line.strip_prefix('{') {
            Some(rest) => format!("{{\"vm\":\"{vm}\",{rest}"),
            None => line.to_owned(),
        }
    }

    fn notice(dropped: u64, vm: &str) -> String {
        format!("{{\"vm\":\"{vm}\",\"message\":\"{}\"}}", notice(dropped))
    }
}

fn notice(dropped: u64) -> String {
    format!("{dropped} lines were dropped, for the virtual machine logs too much")
}

impl<S, N, F> FormatEvent<S, N> for WithVm<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N> + Lines,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        match self.budget.rule(event.metadata().target(), line.len(), Instant::now()) {
            Ruling::Drop => return Ok(()),
            Ruling::Write(0) => {}
            Ruling::Write(dropped) => writeln!(writer, "{}", F::notice(dropped, &self.vm))?,
        }
        writeln!(writer, "{}", F::add_vm(line.trim_end_matches('\n'), &self.vm))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_cut_off_and_does_not_drown_our_own_lines() {
        let (budget, start) = (Budget::new(), Instant::now());
        let length = 4096;
        let written =
            (0..10_000).filter(|_| budget.rule(GUEST, length, start) == Ruling::Write(0)).count();
        assert_eq!(written, 1024);
        assert_eq!(budget.rule(QEMU, length, start), Ruling::Drop);
        assert_eq!(budget.rule("runhcs_vm_shim::serve", length, start), Ruling::Write(0));
        let later = start + Duration::from_secs(60);
        assert_eq!(budget.rule(GUEST, length, later), Ruling::Write(8977));
    }
}
