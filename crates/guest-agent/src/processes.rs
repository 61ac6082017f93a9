//! What `/proc` says of a container's processes, for the host's ps(1).

use runhcs_protocol::frame::{self, MAX_REPLY};
use runhcs_protocol::guest::Failure;
use runhcs_protocol::processes::{MAX_COMMAND_LINE, ProcessFiles, ProcessTable, SystemFiles};

/// How much of an answer the processes may fill, in bytes.
const BUDGET: usize = MAX_REPLY / 2;

/// Describes the processes with pids greater than `after`, as many as fit into an answer.
///
/// # Errors
/// If the guest's own files can't be read.
pub fn describe(mut pids: Vec<u32>, after: u32) -> Result<ProcessTable, Failure> {
    let read = |name: &str| {
        std::fs::read_to_string(name)
            .map_err(|error| Failure::Other(vec![format!("read {name}"), error.to_string()]))
    };
    let system = SystemFiles {
        uptime: read("/proc/uptime")?,
        stat: read("/proc/stat")?,
        memory: read("/proc/meminfo")?,
    };
    pids.retain(|pid| *pid > after);
    pids.sort_unstable();
    let mut table = ProcessTable { system, processes: Vec::new(), more: false };
    let mut used = 0;
    for pid in pids {
        // One that has ended meanwhile.
        let Ok(files) = files(pid) else { continue };
        used += frame::encode(&files).map_or(BUDGET, |text| text.len());
        if used > BUDGET && !table.processes.is_empty() {
            table.more = true;
            break;
        }
        table.processes.push(files);
    }
    Ok(table)
}

fn files(pid: u32) -> std::io::Result<ProcessFiles> {
    let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let mut command_line = read("cmdline")?;
    command_line.truncate(MAX_COMMAND_LINE);
    Ok(ProcessFiles {
        pid,
        stat: text(read("stat")?),
        status: text(read("status")?),
        command_line: text(command_line),
        cgroup: text(read("cgroup")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_processes_come_in_parts() {
        let own = std::process::id();
        let table = describe(vec![own], 0).unwrap();
        assert_eq!(table.processes.len(), 1);
        assert!(table.processes[0].stat.starts_with(&own.to_string()));
        assert!(describe(vec![own], own).unwrap().processes.is_empty());
        // The same one over and over stands for many.
        let part = describe(vec![own; 2000], 0).unwrap();
        assert!(part.more && part.processes.len() > 10, "{}", part.processes.len());
        assert!(frame::encode(&part).unwrap().len() < MAX_REPLY);
    }
}
