//! `list`: all containers of this root.

use std::io::Write;

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use serde_json::Value;

use crate::cli::{ListArgs, ListFormat};
use crate::existing::Existing;
use crate::globals::Globals;

const COLUMNS: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];

/// Prints the containers. One whose state can't be read is named on stderr and left out.
pub fn run(globals: &Globals, args: &ListArgs) -> Result<u8> {
    let mut states = Vec::new();
    for (name, listed) in globals.store.list()? {
        let described = listed.map_err(anyhow::Error::from).and_then(|(entry, _)| {
            super::state::describe(&Existing::open(&globals.store, &entry)?)
        });
        match described {
            Ok(state) => states.push(state),
            Err(error) => eprintln!("runhcs: {name}: {error:#}"),
        }
    }
    let text = if args.quiet {
        states.iter().map(|state| format!("{}\n", text(&state["id"]))).collect()
    } else if args.format == ListFormat::Json {
        format!("{}\n", Value::from(states))
    } else {
        table(&states)
    };
    std::io::stdout().write_all(text.as_bytes()).context("write to standard output")?;
    Ok(0)
}

fn table(states: &[Value]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(COLUMNS);
    for state in states {
        table.add_row(COLUMNS.map(|column| text(&state[column.to_lowercase()])));
    }
    let lines = table.lines().map(|line| format!("{}\n", line.trim()));
    lines.collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
