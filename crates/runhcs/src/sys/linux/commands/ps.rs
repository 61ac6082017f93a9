//! `ps`: a container's processes.

use std::io::Write;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cli::{ListFormat, PsArgs, split_id};
use crate::existing::Existing;
use crate::globals::Globals;

mod guest;

/// Prints a container's processes: as ps(1) shows them, with the guest's pids if they are in a VM, or
/// as pids of this host.
pub fn run(globals: &Globals, args: &PsArgs) -> Result<u8> {
    let (id, options) = split_id(&args.operands)?;
    let (_, existing) = Existing::find(&globals.store, &id)?;
    let mut pids =
        existing.require()?.processes().map_err(|error| existing.explained(error.into()))?;
    let json = args.format == ListFormat::Json;
    if let Some(container) = existing.vm_container() {
        if json {
            // A program takes pids for this host's. Of the guest's processes those have one that
            // a container shim stands for.
            let stand_ins = container.vm.stand_ins(&container.id)?;
            let alive = stand_ins.iter().filter(|stand_in| pids.contains(&stand_in.guest_pid));
            pids = alive.map(|stand_in| stand_in.pid).collect();
        } else {
            let table = container.process_table()?;
            pids = table.processes.iter().map(|process| process.pid).collect();
            guest::enter(&table)?;
        }
    }
    let text = if json {
        format!("{}\n", serde_json::to_string(&pids)?)
    } else {
        filter(&ps(options)?, &pids)?
    };
    std::io::stdout().write_all(text.as_bytes()).context("write to standard output")?;
    Ok(0)
}

fn ps(options: &[String]) -> Result<String> {
    // As with runc, `--` may come before them.
    let options = options.strip_prefix(&["--".to_owned()]).unwrap_or(options);
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default } else { options };
    let output = Command::new("ps").args(options).output().context("run ps")?;
    if !output.status.success() {
        bail!("ps {}: {}", options.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Keeps the header and the lines of the container's processes.
fn filter(output: &str, pids: &[u32]) -> Result<String> {
    let mut lines = output.lines();
    let header = lines.next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|name| name == "PID") else {
        bail!("ps shows no PID column; choose options with which it does");
    };
    let ours = lines.filter(|line| {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        pid.is_some_and(|pid: u32| pids.contains(&pid))
    });
    Ok(std::iter::once(header).chain(ours).fold(String::new(), |text, line| text + line + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_containers_lines() {
        let output = "UID PID CMD\nroot 1 init\nroot 12 sleep 1\nroot 2 x\n";
        assert_eq!(filter(output, &[12]).unwrap(), "UID PID CMD\nroot 12 sleep 1\n");
        assert!(filter("UID CMD\n", &[]).is_err());
    }
}
