//! Log messages in the shape that runc writes and its callers read: containerd and Podman take the
//! last error of a failed command from the log file.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::Context;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

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
    let (level, sink) = match &args.log {
        Some(path) => {
            let file =
                sys::open_log(path).with_context(|| format!("open log file {}", path.display()))?;
            (level, Sink::File(file))
        }
        None if args.debug => (level, Sink::Stderr),
        None => (Level::WARN, Sink::WarningsToStderr),
    };
    let log = Log { level, json: args.log_format == LogFormat::Json, sink };
    tracing::subscriber::set_global_default(log).context("set logging up")
}

/// Where messages go, each with one write, so that several processes can share a file.
enum Sink {
    File(File),
    Stderr,
    WarningsToStderr,
}

/// What takes the messages. This program has no spans, so it needs no register of them, which takes
/// a while to set up (docs/decisions/0014).
struct Log {
    level: Level,
    json: bool,
    sink: Sink,
}

impl Subscriber for Log {
    fn enabled(&self, about: &Metadata<'_>) -> bool {
        let told = matches!(self.sink, Sink::WarningsToStderr) && *about.level() == Level::ERROR;
        about.is_event() && *about.level() <= self.level && !told
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.into())
    }

    fn event(&self, event: &Event<'_>) {
        let line = self.line(event);
        // Nobody is left to be told that the log can't be written.
        let _ = match &self.sink {
            Sink::File(file) => (&mut &*file).write_all(line.as_bytes()),
            Sink::Stderr | Sink::WarningsToStderr => {
                std::io::stderr().lock().write_all(line.as_bytes())
            }
        };
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Log {
    fn line(&self, event: &Event<'_>) -> String {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for (name, value) in [("container", &CONTAINER), ("vm", &VM)] {
            if let Some(value) = value.get() {
                fields.0.insert(name.to_owned(), value.as_str().into());
            }
        }
        let time = now();
        let level = event.metadata().level().to_string().to_lowercase();
        if self.json {
            let mut line = Map::from_iter([
                ("level".to_owned(), Value::from(level)),
                ("time".to_owned(), Value::from(time)),
            ]);
            line.extend(fields.0);
            return format!("{}\n", Value::Object(line));
        }
        let message = fields.0.remove("msg").unwrap_or_default();
        let mut line = format!("time={time:?} level={level} msg={message}");
        for (name, value) in fields.0 {
            line.push_str(&format!(" {name}={value}"));
        }
        line.push('\n');
        line
    }
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

/// The present time, as `state` and `list` report it: RFC 3339 in UTC.
pub fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}
