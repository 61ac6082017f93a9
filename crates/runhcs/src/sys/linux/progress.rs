//! Progress of what takes long, on a terminal only: one line on standard error, gone when it ends.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Whoever waits less than this needs no line.
const PATIENCE: Duration = Duration::from_millis(500);

/// A line that says what is waited for, and for how long already.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows nothing yet.
    pub fn new(what: &'static str) -> Self {
        // Draws nothing unless standard error is a terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self(bar)
    }

    /// Draws the line anew. It starts no thread: whoever waits calls this.
    pub fn tick(&mut self) {
        if self.0.elapsed() < PATIENCE {
            return;
        }
        if self.0.is_hidden() {
            self.0.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.0.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
