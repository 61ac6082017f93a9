//! The guest agent's lines in the VM's log.
//!
//! The guest may write whatever it likes: a line is cut to its bound, and control characters are
//! escaped, so that it can't pose as a line of the host's.

use runhcs_protocol::agent_log::{LogLevel, LogLine, cut};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::log;

/// Puts a line of the agent's in the log.
pub fn write(line: &LogLine) {
    let message = printable(&line.message);
    // An absent field is left out of the line.
    let container = line.container.as_ref().map(tracing::field::display);
    match line.level {
        LogLevel::Error => tracing::error!(target: log::GUEST, container, "{message}"),
        LogLevel::Warn => tracing::warn!(target: log::GUEST, container, "{message}"),
        LogLevel::Info => tracing::info!(target: log::GUEST, container, "{message}"),
        LogLevel::Debug => tracing::debug!(target: log::GUEST, container, "{message}"),
    }
}

/// From which level on the agent's lines would pass the host's filter. The filter itself is applied
/// here, too; this saves the guest what would be thrown away.
pub fn level(filter: &str) -> LogLevel {
    let most = EnvFilter::try_new(filter).ok().and_then(|filter| filter.max_level_hint());
    match most.unwrap_or(LevelFilter::INFO) {
        LevelFilter::OFF | LevelFilter::ERROR => LogLevel::Error,
        LevelFilter::WARN => LogLevel::Warn,
        LevelFilter::INFO => LogLevel::Info,
        _ => LogLevel::Debug,
    }
}

/// A text of the guest's, bounded, with control characters escaped.
pub fn printable(text: &str) -> String {
    let text = cut(text);
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use runhcs_protocol::agent_log::MAX_MESSAGE;

    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(printable("a\nb\u{1b}[0mü"), "a\\nb\\u{1b}[0mü");
        let long = "x".repeat(MAX_MESSAGE + 1);
        assert_eq!(printable(&long).len(), MAX_MESSAGE);
    }

    #[test]
    fn the_agent_is_told_the_most_that_is_wanted() {
        assert_eq!(level("info"), LogLevel::Info);
        assert_eq!(level("debug,virtiofsd=info"), LogLevel::Debug);
        assert_eq!(level("trace"), LogLevel::Debug);
        assert_eq!(level("off"), LogLevel::Error);
    }
}
