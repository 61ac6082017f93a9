//! Log messages in the shape that runc writes and its callers read: containerd and Podman take the
//! last error of a failed command from the log file.

use std::fmt::{self, Write as _};
use std::sync::OnceLock;

use anyhow::Context;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime as Rfc3339};
use tracing_subscriber::fmt::writer::MakeWriterExt as _;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use runhcs_compute::ContainerId;

use crate::cli::{GlobalArgs, LogFormat};
use crate::sys;

/// The container that this process is about, as each line names it.
static CONTAINER: OnceLock<String> = OnceLock::new();
/// The VM that this process is about.
static VM: OnceLock<String> = OnceLock::new();

/// Has each line from now on name the container. The first call counts.
pub fn about_container(id: &ContainerId) {
    let _ = CONTAINER.set(id.to_string());
}

/// Has each line from now on name the VM, by the id that the VM shim's log has for it. The first
/// call counts.
pub fn about_vm(host: &ContainerId) {
    let _ = VM.set(format!("{host}@vm"));
}

/// Sets logging up as the options say. Without `--log` and `--debug` only warnings are logged, to
/// standard error, where errors are told already.
pub fn init(args: &GlobalArgs) -> anyhow::Result<()> {
    let level = if args.debug { Level::DEBUG } else { Level::INFO };
    let shape = Shape { json: args.log_format == LogFormat::Json };
    let builder = tracing_subscriber::fmt().with_max_level(level).event_format(shape);
    match &args.log {
        Some(path) => {
            let file =
                sys::open_log(path).with_context(|| format!("open log file {}", path.display()))?;
            builder.with_writer(Lines(file)).init();
        }
        None if args.debug => builder.with_writer(std::io::stderr).init(),
        None => {
            let warnings = std::io::stderr.with_filter(|about| *about.level() == Level::WARN);
            builder.with_max_level(Level::WARN).with_writer(warnings).init();
        }
    }
    Ok(())
}

/// A file to which each message goes with one write, so that several processes can share it.
struct Lines(std::fs::File);

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Lines {
    type Writer = &'a std::fs::File;

    fn make_writer(&'a self) -> Self::Writer {
        &self.0
    }
}

struct Shape {
    json: bool,
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.0.insert(name.to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl<S, N> FormatEvent<S, N> for Shape
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for (name, value) in [("container", &CONTAINER), ("vm", &VM)] {
            if let Some(value) = value.get() {
                fields.0.insert(name.to_owned(), value.as_str().into());
            }
        }
        let mut time = String::new();
        Rfc3339.format_time(&mut Writer::new(&mut time))?;
        let level = event.metadata().level().to_string().to_lowercase();
        if self.json {
            let mut line = Map::from_iter([
                ("level".to_owned(), Value::from(level)),
                ("time".to_owned(), Value::from(time)),
            ]);
            line.extend(fields.0);
            return writeln!(writer, "{}", Value::Object(line));
        }
        let message = fields.0.remove("msg").unwrap_or_default();
        let mut line = format!("time={time:?} level={level} msg={message}");
        for (name, value) in fields.0 {
            write!(line, " {name}={value}")?;
        }
        writeln!(writer, "{line}")
    }
}

/// The present time, as `state` and `list` report it: RFC 3339 in UTC.
pub fn now() -> String {
    let mut text = String::new();
    let _ = Rfc3339.format_time(&mut Writer::new(&mut text));
    text
}
