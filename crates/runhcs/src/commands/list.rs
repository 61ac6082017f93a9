//! `list`: all containers of this root.

use std::io::Write;

use anyhow::{Context, Result};
use comfy_table::{Table, presets};

use crate::cli::{ListArgs, ListFormat};
use crate::existing::Existing;
use crate::globals::Globals;

use super::state::State;

const COLUMNS: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];

/// Prints the containers. One whose state can't be read is named on stderr and left out.
pub fn run(globals: &Globals, args: &ListArgs) -> Result<u8> {
    let tell = |name: &str, error: &anyhow::Error| eprintln!("runhcs: {name}: {error:#}");
    let mut containers = Vec::new();
    for (name, listed) in globals.store.list()? {
        let opened = listed.map_err(anyhow::Error::from);
        match opened.and_then(|(entry, _)| Existing::open(&globals.store, &entry)) {
            Ok(existing) => containers.push(existing),
            Err(error) => tell(&name, &error),
        }
    }
    let mut states = Vec::new();
    for existing in &containers {
        match State::of(existing) {
            Ok(state) => states.push(state),
            Err(error) => tell(existing.record.id.as_str(), &error),
        }
    }
    let text = if args.quiet {
        states.iter().map(|state| format!("{}\n", state.id)).collect()
    } else if args.format == ListFormat::Json {
        format!("{}\n", serde_json::to_string(&states)?)
    } else {
        table(&states)
    };
    std::io::stdout().write_all(text.as_bytes()).context("write to standard output")?;
    Ok(0)
}

fn table(states: &[State<'_>]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(COLUMNS);
    for state in states {
        table.add_row([
            state.id.to_string(),
            state.pid.to_string(),
            state.status.to_string(),
            state.bundle.display().to_string(),
            state.created.to_owned(),
            state.owner.to_owned(),
        ]);
    }
    let lines = table.lines().map(|line| format!("{}\n", line.trim()));
    lines.collect()
}
