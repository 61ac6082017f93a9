//! The log: `tracing` on standard error, as text or JSON, with the VM's id on every line.
//!
//! Libraries log from threads of their own, where no span of ours is entered. So the id is put in
//! by the formatter and not by a span.

use std::fmt;
use std::io;

use anyhow::Context;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Json, JsonFields, Writer};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

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
    let vm = options.vm.clone();
    if options.log_json {
        let format = JsonWithVm { vm, format: Format::default().json().flatten_event(true) };
        builder.fmt_fields(JsonFields::new()).event_format(format).try_init()
    } else {
        let format = TextWithVm { vm, format: Format::default().with_ansi(false) };
        builder.with_ansi(false).event_format(format).try_init()
    }
    .map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}

struct TextWithVm {
    vm: String,
    format: Format<Full, SystemTime>,
}

impl<S, N> FormatEvent<S, N> for TextWithVm
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{} vm={}", line.trim_end_matches('\n'), self.vm)
    }
}

struct JsonWithVm {
    vm: String,
    format: Format<Json, SystemTime>,
}

impl<S, N> FormatEvent<S, N> for JsonWithVm
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            // An id holds nothing that JSON would have escaped.
            Some(rest) => write!(writer, "{{\"vm\":\"{}\",{rest}", self.vm),
            None => writer.write_str(&line),
        }
    }
}
