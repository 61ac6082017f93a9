//! Statistics of version 2 (Documentation/admin-guide/cgroup-v2.rst), in version 1's terms where
//! the two differ, as runc has it.

use std::io;
use std::path::Path;

use runhcs_compute::stats::{BlockIoEntry, HugePages, MemoryUsage, Stats};

use super::huge_pages;
use super::parse::{Group, list, number};

pub(super) fn read(path: &Path) -> io::Result<Stats> {
    let mut stats = Stats::default();
    let group = Group(path);
    let counts = group.keyed("cpu.stat")?;
    // The kernel counts microseconds here.
    let count = |key: &str| counts.get(key).copied().unwrap_or_default();
    stats.cpu.usage.total = count("usage_usec") * 1000;
    stats.cpu.usage.user = count("user_usec") * 1000;
    stats.cpu.usage.kernel = count("system_usec") * 1000;
    stats.cpu.throttling.periods = count("nr_periods");
    stats.cpu.throttling.throttled_periods = count("nr_throttled");
    stats.cpu.throttling.throttled_time = count("throttled_usec") * 1000;
    stats.cpu.psi = group.pressure("cpu.pressure")?;
    stats.cpuset.cpus = list(&group.text("cpuset.cpus.effective")?.unwrap_or_default());
    stats.cpuset.mems = list(&group.text("cpuset.mems.effective")?.unwrap_or_default());
    memory(group, &mut stats)?;
    stats.pids.current = group.number("pids.current")?.unwrap_or_default();
    // No limit is no number, as runc has it.
    let limit = group.number("pids.max")?.filter(|limit| *limit != u64::MAX);
    stats.pids.limit = limit.unwrap_or_default();
    block_io(group, &mut stats)?;
    huge_pages(&group, &mut stats, |group, size| {
        let Some(usage) = group.number(&format!("hugetlb.{size}.current"))? else {
            return Ok(None);
        };
        let events = group.keyed(&format!("hugetlb.{size}.events"))?;
        let failcnt = events.get("max").copied().unwrap_or_default();
        Ok(Some(HugePages { usage, max: 0, failcnt }))
    })?;
    Ok(stats)
}

fn memory(group: Group<'_>, stats: &mut Stats) -> io::Result<()> {
    let memory = &mut stats.memory;
    memory.raw = group.keyed("memory.stat")?;
    memory.cache = memory.raw.get("file").copied().unwrap_or_default();
    let usage = |kind: &str| -> io::Result<MemoryUsage> {
        Ok(MemoryUsage {
            limit: group.number(&format!("memory{kind}.max"))?.unwrap_or_default(),
            usage: group.number(&format!("memory{kind}.current"))?.unwrap_or_default(),
            max: group.number(&format!("memory{kind}.peak"))?.unwrap_or_default(),
            failcnt: 0,
        })
    };
    memory.usage = usage("")?;
    // Version 1 counts memory and swap together.
    let swap = usage(".swap")?;
    memory.swap = MemoryUsage {
        limit: swap.limit.saturating_add(if swap.limit == u64::MAX {
            0
        } else {
            memory.usage.limit
        }),
        usage: swap.usage.saturating_add(memory.usage.usage),
        ..MemoryUsage::default()
    };
    memory.psi = group.pressure("memory.pressure")?;
    Ok(())
}

fn block_io(group: Group<'_>, stats: &mut Stats) -> io::Result<()> {
    let io = &mut stats.blkio;
    for line in group.text("io.stat")?.iter().flat_map(|text| text.lines()) {
        let mut fields = line.split_whitespace();
        let device = fields.next().and_then(|device| device.split_once(':'));
        let Some((major, minor)) = device else { continue };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut io.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut io.io_service_bytes_recursive, "Write"),
                "rios" => (&mut io.io_serviced_recursive, "Read"),
                "wios" => (&mut io.io_serviced_recursive, "Write"),
                _ => continue,
            };
            list.push(BlockIoEntry {
                major: number(major),
                minor: number(minor),
                op: op.to_owned(),
                value: number(value),
            });
        }
    }
    io.psi = group.pressure("io.pressure")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_read_in_version_1_terms() {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\n"),
            ("memory.stat", "anon 1\nfile 4096\n"),
            ("memory.current", "8192\n"),
            ("memory.max", "100000\n"),
            ("memory.swap.current", "1\n"),
            ("memory.swap.max", "50\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.events", "max 6\n"),
        ] {
            std::fs::write(directory.path().join(file), text).unwrap();
        }
        let stats = read(directory.path()).unwrap();
        assert_eq!((stats.cpu.usage.total, stats.cpu.usage.user), (5000, 3000));
        assert_eq!((stats.memory.cache, stats.memory.usage.limit), (4096, 100_000));
        assert_eq!((stats.memory.swap.usage, stats.memory.swap.limit), (8193, 100_050));
        assert_eq!((stats.pids.current, stats.pids.limit), (3, 0));
        assert_eq!(stats.blkio.io_service_bytes_recursive[1].value, 2);
        assert_eq!(stats.hugetlb["2MB"].failcnt, 6);
    }
}
