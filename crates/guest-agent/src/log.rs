//! The agent's log: `tracing`, carried to the host over the control connection and written to the
//! console as long as there is none.
//!
//! A subscriber of its own instead of `tracing-subscriber`: events alone, no spans, one thread. The
//! container an event is about is its field `container`; the VM's id is added by the host.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use runhcs_protocol::agent_log::{LEVEL_WORD, LogLevel, LogLine, cut};
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata};

/// Lines that may wait for the host; more are counted and dropped, for the log must neither fill
/// the memory nor hold up a container.
const WAITING: usize = 256;

thread_local! {
    /// Where lines go; `None` before the host is connected.
    static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
}

struct Host {
    lines: mpsc::Sender<LogLine>,
    dropped: u64,
}

/// Starts logging to the console, from this level on.
pub fn init(level: LogLevel) {
    // It fails only where there is a subscriber already.
    let _ = tracing::subscriber::set_global_default(Log { level });
}

/// Has lines go to the host from now on; they are to be taken from what is returned.
pub fn to_host() -> mpsc::Receiver<LogLine> {
    let (lines, waiting) = mpsc::channel(WAITING);
    HOST.set(Some(Host { lines, dropped: 0 }));
    waiting
}

/// The level that the kernel's command line names.
pub fn level(command_line: &str) -> LogLevel {
    let value = command_line
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix(LEVEL_WORD)?.strip_prefix('='))
        .next_back();
    value.and_then(LogLevel::from_name).unwrap_or(LogLevel::Info)
}

struct Log {
    level: LogLevel,
}

fn importance(level: &Level) -> LogLevel {
    match *level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        _ => LogLevel::Debug,
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Of the libraries, only what is wrong.
        let ours = metadata.target().starts_with("runhcs");
        let most = if ours { self.level } else { self.level.min(LogLevel::Warn) };
        metadata.is_event() && importance(metadata.level()) <= most
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let container = fields.container.and_then(|id| id.parse().ok());
        let message = cut(&(fields.message + &fields.others)).to_owned();
        deliver(LogLine { level: importance(event.metadata().level()), container, message });
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn deliver(line: LogLine) {
    HOST.with_borrow_mut(|host| {
        let Some(host) = host else {
            eprintln!("runhcs-guest-agent: {}: {}", line.level.name(), line.message);
            return;
        };
        if host.dropped > 0 {
            let message = format!("{} lines of the log were dropped", host.dropped);
            let notice = LogLine { level: LogLevel::Warn, container: None, message };
            if host.lines.try_send(notice).is_ok() {
                host.dropped = 0;
            }
        }
        if host.lines.try_send(line).is_err() {
            host.dropped += 1;
        }
    });
}

#[derive(Default)]
struct Fields {
    message: String,
    container: Option<String>,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "container" => self.container = Some(format!("{value:?}")),
            name => {
                // Writing to a string can't fail.
                let _ = write!(self.others, " {name}={value:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use runhcs_protocol::agent_log::MAX_MESSAGE;

    use super::*;

    #[test]
    fn the_last_word_on_the_command_line_counts() {
        assert_eq!(level("quiet runhcs.log=debug x=1"), LogLevel::Debug);
        assert_eq!(level("runhcs.log=debug runhcs.log=error"), LogLevel::Error);
        assert_eq!(level("runhcs.log=loud"), LogLevel::Info);
        assert_eq!(level("runhcs.logs=debug"), LogLevel::Info);
    }

    #[test]
    fn lines_carry_their_container_and_their_fields() {
        let mut lines = to_host();
        let log = Log { level: LogLevel::Info };
        tracing::subscriber::with_default(log, || {
            let id: runhcs_compute::ContainerId = "c1".parse().unwrap();
            tracing::info!(container = %id, pid = 7, "created");
            tracing::debug!("not wanted");
            tracing::warn!("{}", "ü".repeat(MAX_MESSAGE));
        });
        let line = lines.try_recv().unwrap();
        assert_eq!(line.level, LogLevel::Info);
        assert_eq!(line.container, Some("c1".parse().unwrap()));
        assert_eq!(line.message, "created pid=7");
        assert_eq!(lines.try_recv().unwrap().message.len(), MAX_MESSAGE);
        assert!(lines.try_recv().is_err());
    }

    #[test]
    fn what_the_host_does_not_take_is_counted() {
        let mut lines = to_host();
        let log = Log { level: LogLevel::Info };
        tracing::subscriber::with_default(log, || {
            for number in 0..WAITING + 3 {
                tracing::info!(number, "line");
            }
            while lines.try_recv().is_ok() {}
            tracing::info!("the next one");
        });
        assert_eq!(lines.try_recv().unwrap().message, "3 lines of the log were dropped");
        assert_eq!(lines.try_recv().unwrap().message, "the next one");
    }
}
