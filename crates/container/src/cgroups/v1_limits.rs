//! `linux.resources` in the terms of version 1 (Documentation/admin-guide/cgroup-v1).

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};
use runhcs_compute::Result;

use super::limits::{Setting, check_page_size, idle, pids, rdma};
use crate::error::invalid;

/// What `cpu.shares` takes; the kernel would silently take the nearest (kernel/sched/sched.h,
/// `MIN_SHARES` and `MAX_SHARES`).
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Every limit as a control file's value.
pub(crate) fn settings(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    if let Some(unified) = resources.unified().as_ref().filter(|unified| !unified.is_empty()) {
        let key = unified.keys().min().map_or("", String::as_str);
        return Err(invalid(
            format!("linux.resources.unified.{key}"),
            "is an invalid configuration here: it is for cgroup version 2, and this system has version 1",
        ));
    }
    resources.memory().iter().try_for_each(|memory| memory_settings(memory, &mut list))?;
    resources.cpu().iter().try_for_each(|cpu| cpu_settings(cpu, &mut list))?;
    list.extend(pids(resources));
    resources.block_io().iter().try_for_each(|block| block_settings(block, &mut list))?;
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let (size, value) = (limit.page_size(), limit.limit());
        check_page_size(index, size)?;
        let field = format!("linux.resources.hugepageLimits[{index}]");
        let file = |kind: &str| format!("hugetlb.{size}.{kind}limit_in_bytes");
        list.push(Setting::new(&field, "hugetlb", file(""), value));
        // Reservations are limited since Linux 5.7.
        list.push(Setting::new(field, "hugetlb", file("rsvd."), value).optional(true));
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            let field = "linux.resources.network.classID";
            list.push(Setting::new(field, "net_cls", "net_cls.classid", class));
        }
        for (index, priority) in network.priorities().iter().flatten().enumerate() {
            let field = format!("linux.resources.network.priorities[{index}]");
            if priority.name().is_empty() || priority.name().contains(char::is_whitespace) {
                return Err(invalid(field + ".name", "is not an interface's name"));
            }
            let value = format!("{} {}", priority.name(), priority.priority());
            list.push(Setting::new(field, "net_prio", "net_prio.ifpriomap", value));
        }
    }
    list.extend(rdma(resources)?);
    Ok(list)
}

fn memory_settings(memory: &LinuxMemory, list: &mut Vec<Setting>) -> Result<()> {
    let field = |name: &str| format!("linux.resources.memory.{name}");
    let set = |name: &str, file: &str, value: i64| Setting::new(field(name), "memory", file, value);
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let (limit, swap) = (given(memory.limit()), given(memory.swap()));
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap > 0
        && (limit < 0 || swap < limit)
    {
        return Err(invalid(
            field("swap"),
            format!("{swap} is less than the memory limit of {limit}; it counts memory and swap"),
        ));
    }
    list.extend(limit.map(|value| set("limit", "memory.limit_in_bytes", value)));
    let memsw = "memory.memsw.limit_in_bytes";
    match (limit, swap) {
        (_, Some(swap)) => list.push(set("swap", memsw, swap)),
        // Unlimited memory with a limit on memory and swap would be a contradiction.
        (Some(..=-1), None) => list.push(set("limit", memsw, -1).optional(true)),
        _ => {}
    }
    let reservation = given(memory.reservation());
    list.extend(reservation.map(|v| set("reservation", "memory.soft_limit_in_bytes", v)));
    #[allow(deprecated, reason = "the specification still has it")]
    let kernel = given(memory.kernel());
    list.extend(kernel.map(|v| set("kernel", "memory.kmem.limit_in_bytes", v)));
    let tcp = given(memory.kernel_tcp());
    list.extend(tcp.map(|v| set("kernelTCP", "memory.kmem.tcp.limit_in_bytes", v)));
    if let Some(value) = memory.swappiness() {
        if value > 100 {
            return Err(invalid(field("swappiness"), format!("{value} is not within 0 to 100")));
        }
        list.push(Setting::new(field("swappiness"), "memory", "memory.swappiness", value));
    }
    if let Some(disable) = memory.disable_oom_killer() {
        let file = "memory.oom_control";
        list.push(Setting::new(field("disableOOMKiller"), "memory", file, i64::from(disable)));
    }
    // The hierarchy has been in use always since Linux 5.11, so only another wish is one.
    if memory.use_hierarchy() == Some(false) {
        list.push(set("useHierarchy", "memory.use_hierarchy", 0));
    }
    Ok(())
}

fn cpu_settings(cpu: &LinuxCpu, list: &mut Vec<Setting>) -> Result<()> {
    let field = |name: &str| format!("linux.resources.cpu.{name}");
    list.extend(idle(cpu.idle())?);
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        if !SHARES.contains(&shares) {
            return Err(invalid(field("shares"), format!("{shares} is not within 2 to 262144")));
        }
        // An idle group's weight is fixed, and setting it is refused.
        if cpu.idle() != Some(1) {
            list.push(Setting::new(field("shares"), "cpu", "cpu.shares", shares));
        }
    }
    for (name, file, value) in [
        ("period", "cpu.cfs_period_us", cpu.period()),
        ("realtimePeriod", "cpu.rt_period_us", cpu.realtime_period()),
    ] {
        let value = value.filter(|value| *value != 0);
        list.extend(value.map(|value| Setting::new(field(name), "cpu", file, value)));
    }
    for (name, file, value) in [
        ("quota", "cpu.cfs_quota_us", cpu.quota()),
        ("realtimeRuntime", "cpu.rt_runtime_us", cpu.realtime_runtime()),
    ] {
        let value = value.filter(|value| *value != 0);
        list.extend(value.map(|value| Setting::new(field(name), "cpu", file, value)));
    }
    let burst = cpu.burst();
    list.extend(burst.map(|v| Setting::new(field("burst"), "cpu", "cpu.cfs_burst_us", v)));
    for (name, file, value) in
        [("cpus", "cpuset.cpus", cpu.cpus()), ("mems", "cpuset.mems", cpu.mems())]
    {
        let value = value.as_ref().filter(|value| !value.is_empty());
        list.extend(value.map(|value| Setting::new(field(name), "cpuset", file, value)));
    }
    Ok(())
}

fn block_settings(block: &LinuxBlockIo, list: &mut Vec<Setting>) -> Result<()> {
    let field = |name: &str| format!("linux.resources.blockIO.{name}");
    // CFQ's files are those of old kernels; BFQ's are there when that scheduler is in use.
    let weight = |field: String, name: &str, value: String| {
        Setting::new(field, "blkio", format!("blkio.{name}"), &value)
            .or(format!("blkio.bfq.{name}"), value)
    };
    if let Some(value) = block.weight().filter(|value| *value != 0) {
        check_weight(&field("weight"), value)?;
        list.push(weight(field("weight"), "weight", value.to_string()));
    }
    if let Some(value) = block.leaf_weight().filter(|value| *value != 0) {
        check_weight(&field("leafWeight"), value)?;
        list.push(Setting::new(field("leafWeight"), "blkio", "blkio.leaf_weight", value));
    }
    for (index, device) in block.weight_device().iter().flatten().enumerate() {
        let field = |name: &str| field(&format!("weightDevice[{index}].{name}"));
        let line = |value: u16| format!("{}:{} {value}", device.major(), device.minor());
        if let Some(value) = device.weight().filter(|value| *value != 0) {
            check_weight(&field("weight"), value)?;
            list.push(weight(field("weight"), "weight_device", line(value)));
        }
        if let Some(value) = device.leaf_weight().filter(|value| *value != 0) {
            check_weight(&field("leafWeight"), value)?;
            let file = "blkio.leaf_weight_device";
            list.push(Setting::new(field("leafWeight"), "blkio", file, line(value)));
        }
    }
    for (name, file, limits) in [
        ("throttleReadBpsDevice", "read_bps", block.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "write_bps", block.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "read_iops", block.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "write_iops", block.throttle_write_iops_device()),
    ] {
        for (index, limit) in limits.iter().flatten().enumerate() {
            let line = format!("{}:{} {}", limit.major(), limit.minor(), limit.rate());
            let file = format!("blkio.throttle.{file}_device");
            list.push(Setting::new(field(&format!("{name}[{index}]")), "blkio", file, line));
        }
    }
    Ok(())
}

/// The specification's range of block IO weights.
pub(crate) fn check_weight(field: &str, value: u16) -> Result<()> {
    if (10..=1000).contains(&value) {
        return Ok(());
    }
    Err(invalid(field, format!("{value} is not within 10 to 1000")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Vec<Setting>> {
        settings(&serde_json::from_str(json).unwrap())
    }

    fn files(json: &str) -> Vec<(String, String)> {
        let list = parse(json).unwrap();
        list.into_iter().map(|setting| setting.choices[0].clone()).collect()
    }

    #[test]
    fn limits_become_files() {
        for (json, expected) in [
            (
                r#"{"memory":{"limit":100,"swap":200,"reservation":50,"kernelTCP":7,"swappiness":0,
                    "disableOOMKiller":true}}"#,
                &[
                    ("memory.limit_in_bytes", "100"),
                    ("memory.memsw.limit_in_bytes", "200"),
                    ("memory.soft_limit_in_bytes", "50"),
                    ("memory.kmem.tcp.limit_in_bytes", "7"),
                    ("memory.swappiness", "0"),
                    ("memory.oom_control", "1"),
                ][..],
            ),
            (
                r#"{"memory":{"limit":-1}}"#,
                &[("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")],
            ),
            (
                r#"{"cpu":{"shares":512,"quota":-1,"period":1000,"burst":0,"idle":0,"cpus":"0",
                    "mems":"0","realtimeRuntime":950,"realtimePeriod":1000}}"#,
                &[
                    ("cpu.idle", "0"),
                    ("cpu.shares", "512"),
                    ("cpu.cfs_period_us", "1000"),
                    ("cpu.rt_period_us", "1000"),
                    ("cpu.cfs_quota_us", "-1"),
                    ("cpu.rt_runtime_us", "950"),
                    ("cpu.cfs_burst_us", "0"),
                    ("cpuset.cpus", "0"),
                    ("cpuset.mems", "0"),
                ],
            ),
            (r#"{"cpu":{"shares":512,"idle":1}}"#, &[("cpu.idle", "1")]),
            (r#"{"pids":{"limit":-1}}"#, &[("pids.max", "max")]),
            (r#"{"pids":{"limit":0}}"#, &[("pids.max", "1")]),
            (
                r#"{"blockIO":{"weight":100,"leafWeight":20,
                    "weightDevice":[{"major":8,"minor":0,"weight":30,"leafWeight":40}],
                    "throttleReadIOPSDevice":[{"major":8,"minor":16,"rate":5}]}}"#,
                &[
                    ("blkio.weight", "100"),
                    ("blkio.leaf_weight", "20"),
                    ("blkio.weight_device", "8:0 30"),
                    ("blkio.leaf_weight_device", "8:0 40"),
                    ("blkio.throttle.read_iops_device", "8:16 5"),
                ],
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],
                    "network":{"classID":1048577,"priorities":[{"name":"eth0","priority":3}]},
                    "rdma":{"mlx5_0":{"hcaHandles":3,"hcaObjects":4}}}"#,
                &[
                    ("hugetlb.2MB.limit_in_bytes", "4194304"),
                    ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
                    ("net_cls.classid", "1048577"),
                    ("net_prio.ifpriomap", "eth0 3"),
                    ("rdma.max", "mlx5_0 hca_handle=3 hca_object=4"),
                ],
            ),
        ] {
            let expected: Vec<(String, String)> =
                expected.iter().map(|(f, v)| (f.to_string(), v.to_string())).collect();
            assert_eq!(files(json), expected, "{json}");
        }
    }

    #[test]
    fn nonsense_is_named_by_its_field() {
        for (json, field) in [
            (r#"{"memory":{"limit":100,"swap":50}}"#, "memory.swap"),
            (r#"{"memory":{"swappiness":101}}"#, "memory.swappiness"),
            (r#"{"cpu":{"shares":1}}"#, "cpu.shares"),
            (r#"{"cpu":{"idle":2}}"#, "cpu.idle"),
            (r#"{"blockIO":{"weight":9}}"#, "blockIO.weight"),
            (
                r#"{"blockIO":{"weightDevice":[{"major":1,"minor":1,"weight":1001}]}}"#,
                "blockIO.weightDevice[0].weight",
            ),
            (r#"{"hugepageLimits":[{"pageSize":"2","limit":1}]}"#, "hugepageLimits[0].pageSize"),
            (r#"{"rdma":{"a b":{"hcaHandles":1}}}"#, "rdma.a b"),
            (r#"{"rdma":{"a":{}}}"#, "rdma.a"),
            (
                r#"{"network":{"priorities":[{"name":"","priority":1}]}}"#,
                "network.priorities[0].name",
            ),
            (r#"{"unified":{"memory.high":"1"}}"#, "unified.memory.high"),
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert_eq!(error, format!("linux.resources.{field}"), "{json}");
        }
    }
}
