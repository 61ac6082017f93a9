//! `ps`: a container's processes, by the pids that they have in the guest.

use std::io::Write;

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use runhcs_hcs::schema::PropertyType;

use crate::cli::{ListFormat, PsArgs, split_id};
use crate::existing::Existing;
use crate::globals::Globals;

/// Prints a container's processes.
pub fn run(globals: &Globals, args: &PsArgs) -> Result<u8> {
    let (id, options) = split_id(&args.operands)?;
    if !options.is_empty() {
        bail!("options of ps(1) can't be used on Windows: {}", options.join(" "));
    }
    let (_, existing) = Existing::find(&globals.store, &id)?;
    let system = existing.service.container().open("list processes of");
    let system = system.map_err(|error| existing.explained(error.into()))?;
    let properties = system.properties(&[PropertyType::ProcessList])?;
    let processes = properties.process_list;
    let text = if args.format == ListFormat::Json {
        let pids: Vec<u32> = processes.iter().map(|process| process.process_id).collect();
        format!("{}\n", serde_json::to_string(&pids)?)
    } else {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(["PID", "IMAGE"]);
        for process in &processes {
            table.add_row([&process.process_id.to_string(), &process.image_name]);
        }
        table.lines().map(|line| format!("{}\n", line.trim())).collect()
    };
    std::io::stdout().write_all(text.as_bytes()).context("write to standard output")?;
    Ok(0)
}
