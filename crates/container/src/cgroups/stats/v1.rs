//! Statistics of version 1 (Documentation/admin-guide/cgroup-v1).

use std::io;
use std::path::PathBuf;

use runhcs_compute::stats::{BlockIoEntry, HugePages, MemoryUsage, Stats};

use super::super::v1::directory;
use super::huge_pages;
use super::parse::{Group, list, number};

/// `cpuacct.stat` counts in ticks of this length, in nanoseconds (USER_HZ, time(7)).
const TICK: u64 = 10_000_000;

pub(super) fn read(paths: &[(String, PathBuf)]) -> io::Result<Stats> {
    let mut stats = Stats::default();
    let group = |controller: &str| directory(paths, controller).map(Group);
    group("cpuacct").map_or(Ok(()), |group| usage(group, &mut stats))?;
    if let Some(group) = group("cpu") {
        let counts = group.keyed("cpu.stat")?;
        let count = |key: &str| counts.get(key).copied().unwrap_or_default();
        stats.cpu.throttling.periods = count("nr_periods");
        stats.cpu.throttling.throttled_periods = count("nr_throttled");
        stats.cpu.throttling.throttled_time = count("throttled_time");
    }
    group("cpuset").map_or(Ok(()), |group| cpuset(group, &mut stats))?;
    group("memory").map_or(Ok(()), |group| memory(group, &mut stats))?;
    if let Some(group) = group("pids") {
        stats.pids.current = group.number("pids.current")?.unwrap_or_default();
        // No limit is no number, as runc has it.
        let limit = group.number("pids.max")?.filter(|limit| *limit != u64::MAX);
        stats.pids.limit = limit.unwrap_or_default();
    }
    group("blkio").map_or(Ok(()), |group| block_io(group, &mut stats))?;
    if let Some(group) = group("hugetlb") {
        huge_pages(&group, &mut stats, |group, size| {
            let file = |name: &str| group.number(&format!("hugetlb.{size}.{name}"));
            let Some(usage) = file("usage_in_bytes")? else { return Ok(None) };
            let max = file("max_usage_in_bytes")?.unwrap_or_default();
            let failcnt = file("failcnt")?.unwrap_or_default();
            Ok(Some(HugePages { usage, max, failcnt }))
        })?;
    }
    Ok(stats)
}

fn usage(group: Group<'_>, stats: &mut Stats) -> io::Result<()> {
    let usage = &mut stats.cpu.usage;
    usage.total = group.number("cpuacct.usage")?.unwrap_or_default();
    let numbers = |text: String| text.split_whitespace().map(number).collect();
    usage.percpu = group.text("cpuacct.usage_percpu")?.map(numbers).unwrap_or_default();
    let ticks = group.keyed("cpuacct.stat")?;
    usage.user = ticks.get("user").copied().unwrap_or_default() * TICK;
    usage.kernel = ticks.get("system").copied().unwrap_or_default() * TICK;
    // A head line, then a line of processor, user and system time for each processor.
    for line in group.text("cpuacct.usage_all")?.iter().flat_map(|text| text.lines().skip(1)) {
        let mut fields = line.split_whitespace().skip(1).map(number);
        if let (Some(user), Some(system)) = (fields.next(), fields.next()) {
            usage.percpu_user.push(user);
            usage.percpu_kernel.push(system);
        }
    }
    Ok(())
}

fn cpuset(group: Group<'_>, stats: &mut Stats) -> io::Result<()> {
    let set = &mut stats.cpuset;
    set.cpus = list(&group.text("cpuset.cpus")?.unwrap_or_default());
    set.mems = list(&group.text("cpuset.mems")?.unwrap_or_default());
    for (file, field) in [
        ("cpu_exclusive", &mut set.cpu_exclusive),
        ("mem_hardwall", &mut set.mem_hardwall),
        ("mem_exclusive", &mut set.mem_exclusive),
        ("memory_migrate", &mut set.memory_migrate),
        ("memory_spread_page", &mut set.memory_spread_page),
        ("memory_spread_slab", &mut set.memory_spread_slab),
        ("memory_pressure", &mut set.memory_pressure),
        ("sched_load_balance", &mut set.sched_load_balance),
    ] {
        *field = group.number(&format!("cpuset.{file}"))?.unwrap_or_default();
    }
    let level = group.text("cpuset.sched_relax_domain_level")?;
    set.sched_relax_domain_level = level.and_then(|l| l.trim().parse().ok()).unwrap_or_default();
    Ok(())
}

fn memory(group: Group<'_>, stats: &mut Stats) -> io::Result<()> {
    let memory = &mut stats.memory;
    memory.raw = group.keyed("memory.stat")?;
    memory.cache = memory.raw.get("cache").copied().unwrap_or_default();
    for (kind, entry) in [
        ("", &mut memory.usage),
        (".memsw", &mut memory.swap),
        (".kmem", &mut memory.kernel),
        (".kmem.tcp", &mut memory.kernel_tcp),
    ] {
        let file = |name: &str| group.number(&format!("memory{kind}.{name}"));
        *entry = MemoryUsage {
            limit: file("limit_in_bytes")?.unwrap_or_default(),
            usage: file("usage_in_bytes")?.unwrap_or_default(),
            max: file("max_usage_in_bytes")?.unwrap_or_default(),
            failcnt: file("failcnt")?.unwrap_or_default(),
        };
    }
    Ok(())
}

/// The scheduler's own counts if it keeps any (BFQ), else those of throttling, as runc has it.
fn block_io(group: Group<'_>, stats: &mut Stats) -> io::Result<()> {
    let read = |name: &str| -> io::Result<Vec<BlockIoEntry>> {
        Ok(group.text(name)?.map(|text| entries(&text)).unwrap_or_default())
    };
    let io = &mut stats.blkio;
    io.io_serviced_recursive = read("blkio.bfq.io_serviced_recursive")?;
    if io.io_serviced_recursive.is_empty() {
        io.io_service_bytes_recursive = read("blkio.throttle.io_service_bytes_recursive")?;
        io.io_serviced_recursive = read("blkio.throttle.io_serviced_recursive")?;
        return Ok(());
    }
    for (name, list) in [
        ("io_service_bytes", &mut io.io_service_bytes_recursive),
        ("io_queued", &mut io.io_queue_recursive),
        ("io_service_time", &mut io.io_service_time_recursive),
        ("io_wait_time", &mut io.io_wait_time_recursive),
        ("io_merged", &mut io.io_merged_recursive),
        ("time", &mut io.io_time_recursive),
        ("sectors", &mut io.sectors_recursive),
    ] {
        *list = read(&format!("blkio.bfq.{name}_recursive"))?;
    }
    Ok(())
}

/// Lines of `major:minor operation number`, the operation left out where there is only one. The
/// line of the total has no device.
fn entries(text: &str) -> Vec<BlockIoEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = fields.next()?.split_once(':')?;
        let (first, second) = (fields.next()?, fields.next());
        let (op, value) = second.map_or(("", first), |value| (first, value));
        Some(BlockIoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_devices_with_and_without_operations() {
        let found = entries("8:0 Read 5\n8:0 Total 5\n253:1 7\nTotal 12\n");
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].op.as_str(), found[0].value), ("Read", 5));
        assert_eq!((found[2].major, found[2].op.as_str(), found[2].value), (253, "", 7));
    }
}
