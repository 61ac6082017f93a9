//! `events`: what a container uses, and when its memory is exhausted, as lines of JSON.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use runhcs_compute::{ContainerId, Stats, Status};
use serde::Serialize;

use crate::existing::Existing;
use crate::globals::Globals;
use crate::sys::cli::EventsArgs;

/// Prints statistics once, or at intervals, and each exhaustion of memory, until the container has
/// ended.
pub fn run(globals: &Globals, args: &EventsArgs) -> Result<u8> {
    let (_, existing) = Existing::find(&globals.store, &args.id)?;
    // The words are runc's, which callers match.
    if existing.status()? == Status::Stopped {
        let because = existing.because(Status::Stopped);
        bail!("container with id {} is not running{because}", args.id);
    }
    if args.stats {
        return print("stats", args, Some(existing.stats()?)).map(|()| 0);
    }
    let mut watch = existing.watch_oom()?;
    let mut known = None;
    let mut due = Instant::now();
    loop {
        let left = due.saturating_duration_since(Instant::now());
        let notice = watch.wait(known, left)?;
        // What happened before the watch began is not told.
        for _ in known.unwrap_or(notice.total)..notice.total {
            print("oom", args, None)?;
        }
        known = Some(notice.total);
        if notice.ended || existing.status()? == Status::Stopped {
            return Ok(0);
        }
        if Instant::now() >= due {
            match existing.stats() {
                Ok(stats) => print("stats", args, Some(stats))?,
                // It may have ended since it was looked at.
                Err(_) if existing.status()? == Status::Stopped => return Ok(0),
                Err(error) => return Err(error),
            }
            due += args.interval.max(Duration::from_millis(1));
        }
    }
}

/// An event, its fields in runc's order; there are callers that look at the text.
#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    id: &'a ContainerId,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

fn print(kind: &'static str, args: &EventsArgs, data: Option<Stats>) -> Result<()> {
    let line = serde_json::to_string(&Event { r#type: kind, id: &args.id, data })?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("write to standard output")
}
