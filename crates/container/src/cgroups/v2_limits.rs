//! `linux.resources` in the terms of version 2 (Documentation/admin-guide/cgroup-v2.rst). The
//! specification speaks the language of version 1; what has no counterpart is refused.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};
use runhcs_compute::Result;

use super::limits::{Setting, check_page_size, idle, pids, rdma};
use super::v1_limits::check_weight;
use crate::error::invalid;

/// Every limit as a control file's value.
pub(crate) fn settings(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    resources.memory().iter().try_for_each(|memory| memory_settings(memory, &mut list))?;
    resources.cpu().iter().try_for_each(|cpu| cpu_settings(cpu, &mut list))?;
    list.extend(pids(resources));
    resources.block_io().iter().try_for_each(|block| block_settings(block, &mut list))?;
    for (index, hugepages) in resources.hugepage_limits().iter().flatten().enumerate() {
        let (size, value) = (hugepages.page_size(), limit(hugepages.limit()));
        check_page_size(index, size)?;
        let field = format!("linux.resources.hugepageLimits[{index}]");
        let file = |kind: &str| format!("hugetlb.{size}.{kind}max");
        list.push(Setting::new(&field, "hugetlb", file(""), &value));
        // Reservations are limited since Linux 5.7.
        list.push(Setting::new(field, "hugetlb", file("rsvd."), value).optional(true));
    }
    if let Some(network) = resources.network() {
        let given = [
            ("classID", network.class_id().is_some_and(|class| class != 0)),
            ("priorities", network.priorities().as_ref().is_some_and(|list| !list.is_empty())),
        ];
        if let Some((name, _)) = given.iter().find(|(_, given)| *given) {
            return Err(not_in_version_2(&format!("linux.resources.network.{name}")));
        }
    }
    list.extend(rdma(resources)?);
    unified(resources, &mut list)?;
    Ok(list)
}

fn not_in_version_2(field: &str) -> runhcs_compute::Error {
    invalid(field, "cgroup version 2, which this system has, has no such setting")
}

fn limit(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn memory_settings(memory: &LinuxMemory, list: &mut Vec<Setting>) -> Result<()> {
    let field = |name: &str| format!("linux.resources.memory.{name}");
    let set = |name: &str, file, value: String| Setting::new(field(name), "memory", file, value);
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let total = given(memory.limit());
    list.extend(total.map(|value| set("limit", "memory.max", limit(value))));
    if let Some(value) = swap(total, given(memory.swap()))? {
        // A kernel that doesn't account for swap can't limit it, nor needs to be told not to.
        let optional = value == "max" || value == "0";
        list.push(set("swap", "memory.swap.max", value).optional(optional));
    }
    let reservation = given(memory.reservation());
    list.extend(reservation.map(|value| set("reservation", "memory.low", limit(value))));
    #[allow(deprecated, reason = "the specification still has it")]
    let kernel = given(memory.kernel());
    for (name, given) in [
        ("kernel", kernel.is_some()),
        ("kernelTCP", given(memory.kernel_tcp()).is_some()),
        ("swappiness", memory.swappiness().is_some()),
        ("disableOOMKiller", memory.disable_oom_killer() == Some(true)),
        ("useHierarchy", memory.use_hierarchy() == Some(false)),
    ] {
        if given {
            return Err(not_in_version_2(&field(name)));
        }
    }
    Ok(())
}

/// Version 2 counts swap alone; the specification counts memory and swap together.
fn swap(memory: Option<i64>, total: Option<i64>) -> Result<Option<String>> {
    let field = "linux.resources.memory.swap";
    match (memory, total) {
        // As runc: unlimited memory is unlimited with swap.
        (Some(..=-1), None) => Ok(Some("max".into())),
        (_, None) => Ok(None),
        (_, Some(..=-1)) => Ok(Some("max".into())),
        (Some(memory), Some(total)) if memory > 0 && total >= memory => {
            Ok(Some((total - memory).to_string()))
        }
        (Some(memory), Some(total)) if memory > 0 => Err(invalid(
            field,
            format!("{total} is less than the memory limit of {memory}; it counts memory and swap"),
        )),
        _ => Err(invalid(field, "needs a limit of memory too, because it counts memory and swap")),
    }
}

fn cpu_settings(cpu: &LinuxCpu, list: &mut Vec<Setting>) -> Result<()> {
    let field = |name: &str| format!("linux.resources.cpu.{name}");
    for (name, given) in [
        ("realtimeRuntime", cpu.realtime_runtime().is_some_and(|value| value != 0)),
        ("realtimePeriod", cpu.realtime_period().is_some_and(|value| value != 0)),
    ] {
        if given {
            return Err(not_in_version_2(&field(name)));
        }
    }
    list.extend(idle(cpu.idle())?);
    // An idle group's weight is fixed, and setting it is refused.
    if let Some(shares) = cpu.shares().filter(|s| *s != 0 && cpu.idle() != Some(1)) {
        list.push(Setting::new(field("shares"), "cpu", "cpu.weight", weight(shares)));
    }
    let (quota, period) = (cpu.quota().filter(|v| *v != 0), cpu.period().filter(|v| *v != 0));
    if quota.is_some() || period.is_some() {
        let name = if quota.is_some() { "quota" } else { "period" };
        let value = format!("{} {}", limit(quota.unwrap_or(-1)), period.unwrap_or(100_000));
        list.push(Setting::new(field(name), "cpu", "cpu.max", value));
    }
    let burst = cpu.burst();
    // Before Linux 5.14 there are no bursts, which is what 0 asks for.
    list.extend(burst.map(|value| {
        Setting::new(field("burst"), "cpu", "cpu.max.burst", value).optional(value == 0)
    }));
    for (name, file, value) in
        [("cpus", "cpuset.cpus", cpu.cpus()), ("mems", "cpuset.mems", cpu.mems())]
    {
        let value = value.as_ref().filter(|value| !value.is_empty());
        list.extend(value.map(|value| Setting::new(field(name), "cpuset", file, value)));
    }
    Ok(())
}

/// Maps `cpu.shares` (2 to 262,144, default 1024) to `cpu.weight` (1 to 10,000, default 100) so
/// that both ends and the defaults meet. The curve is runc's since 1.4: with l = log2(shares), the
/// weight is the next integer above 10^((l² + 125·l) / 612 − 7/34).
pub(crate) fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// Maps a block IO weight (10 to 1000) to `io.weight` (1 to 10,000), linearly, as runc does.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9_999 / 990
}

fn block_settings(block: &LinuxBlockIo, list: &mut Vec<Setting>) -> Result<()> {
    let field = |name: &str| format!("linux.resources.blockIO.{name}");
    if block.leaf_weight().is_some_and(|value| value != 0) {
        return Err(not_in_version_2(&field("leafWeight")));
    }
    if let Some(value) = block.weight().filter(|value| *value != 0) {
        check_weight(&field("weight"), value)?;
        let setting = Setting::new(field("weight"), "io", "io.bfq.weight", value);
        list.push(setting.or("io.weight", io_weight(value)));
    }
    for (index, device) in block.weight_device().iter().flatten().enumerate() {
        let field = |name: &str| field(&format!("weightDevice[{index}].{name}"));
        if device.leaf_weight().is_some_and(|value| value != 0) {
            return Err(not_in_version_2(&field("leafWeight")));
        }
        let Some(value) = device.weight().filter(|value| *value != 0) else { continue };
        check_weight(&field("weight"), value)?;
        let line = |value: u64| format!("{}:{} {value}", device.major(), device.minor());
        let setting = Setting::new(field("weight"), "io", "io.bfq.weight", line(value.into()));
        list.push(setting.or("io.weight", line(io_weight(value))));
    }
    for (name, key, limits) in [
        ("throttleReadBpsDevice", "rbps", block.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "wbps", block.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "riops", block.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "wiops", block.throttle_write_iops_device()),
    ] {
        for (index, throttle) in limits.iter().flatten().enumerate() {
            // In version 1, which the specification describes, 0 takes a limit away.
            let rate = match throttle.rate() {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            let line = format!("{}:{} {key}={rate}", throttle.major(), throttle.minor());
            list.push(Setting::new(field(&format!("{name}[{index}]")), "io", "io.max", line));
        }
    }
    Ok(())
}

/// Files by their own names. The kernel takes one line a write.
fn unified(resources: &LinuxResources, list: &mut Vec<Setting>) -> Result<()> {
    let mut files: Vec<_> = resources.unified().iter().flatten().collect();
    files.sort();
    for (file, value) in files {
        let field = format!("linux.resources.unified.{file}");
        let well_formed = file.split_once('.').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
        if file.contains('/') || !well_formed {
            return Err(invalid(field, "is not the name of a control file"));
        }
        for line in value.lines().filter(|line| !line.trim().is_empty()) {
            list.push(Setting::new(&field, "unified", file, line));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Vec<Setting>> {
        settings(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn shares_map_to_weights_at_both_ends_and_the_defaults() {
        for (shares, expected) in [(0, 1), (2, 1), (3, 2), (1024, 100), (262_144, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert!((2..262_144).step_by(97).all(|shares| weight(shares) <= weight(shares + 97)));
    }

    #[test]
    fn swap_is_counted_alone() {
        assert_eq!(swap(Some(100), Some(150)).unwrap().as_deref(), Some("50"));
        assert_eq!(swap(Some(100), Some(100)).unwrap().as_deref(), Some("0"));
        assert_eq!(swap(Some(100), Some(-1)).unwrap().as_deref(), Some("max"));
        assert_eq!(swap(Some(-1), None).unwrap().as_deref(), Some("max"));
        assert_eq!(swap(Some(100), None).unwrap(), None);
        assert!(swap(Some(100), Some(50)).is_err());
        assert!(swap(None, Some(50)).is_err());
        assert!(swap(Some(-1), Some(50)).is_err());
    }

    #[test]
    fn limits_become_files() {
        for (json, expected) in [
            (
                r#"{"memory":{"limit":100,"swap":150,"reservation":-1,"disableOOMKiller":false}}"#,
                &[("memory.max", "100"), ("memory.swap.max", "50"), ("memory.low", "max")][..],
            ),
            (
                r#"{"cpu":{"shares":1024,"quota":50000,"burst":10,"idle":0,"cpus":"0-1","mems":"0"}}"#,
                &[
                    ("cpu.idle", "0"),
                    ("cpu.weight", "100"),
                    ("cpu.max", "50000 100000"),
                    ("cpu.max.burst", "10"),
                    ("cpuset.cpus", "0-1"),
                    ("cpuset.mems", "0"),
                ],
            ),
            (r#"{"cpu":{"period":2000}}"#, &[("cpu.max", "max 2000")]),
            (r#"{"pids":{"limit":7}}"#, &[("pids.max", "7")]),
            (r#"{"pids":{"limit":0}}"#, &[("pids.max", "1")]),
            (
                r#"{"blockIO":{"weight":1000,"weightDevice":[{"major":8,"minor":0,"weight":10}],
                    "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5}],
                    "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}"#,
                &[
                    ("io.bfq.weight", "1000"),
                    ("io.bfq.weight", "8:0 10"),
                    ("io.max", "8:0 rbps=5"),
                    ("io.max", "8:0 wiops=max"),
                ],
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}],"rdma":{"a":{"hcaObjects":1}}}"#,
                &[
                    ("hugetlb.2MB.max", "0"),
                    ("hugetlb.2MB.rsvd.max", "0"),
                    ("rdma.max", "a hca_object=1"),
                ],
            ),
            (
                r#"{"unified":{"memory.high":"5","io.max":"8:0 rbps=1\n8:16 rbps=2\n"}}"#,
                &[("io.max", "8:0 rbps=1"), ("io.max", "8:16 rbps=2"), ("memory.high", "5")],
            ),
        ] {
            let list = parse(json).unwrap();
            let list: Vec<(&str, &str)> =
                list.iter().map(|s| (s.choices[0].0.as_str(), s.choices[0].1.as_str())).collect();
            assert_eq!(list, expected, "{json}");
        }
    }

    #[test]
    fn without_bfq_weights_are_converted() {
        let list = parse(r#"{"blockIO":{"weight":1000}}"#).unwrap();
        assert_eq!(list[0].choices[1], ("io.weight".to_owned(), "10000".to_owned()));
        assert_eq!((io_weight(10), io_weight(505)), (1, 5000));
    }

    #[test]
    fn what_has_no_counterpart_is_named_by_its_field() {
        for (json, field) in [
            (r#"{"memory":{"kernel":1}}"#, "memory.kernel"),
            (r#"{"memory":{"kernelTCP":1}}"#, "memory.kernelTCP"),
            (r#"{"memory":{"swappiness":1}}"#, "memory.swappiness"),
            (r#"{"memory":{"disableOOMKiller":true}}"#, "memory.disableOOMKiller"),
            (r#"{"memory":{"swap":5}}"#, "memory.swap"),
            (r#"{"cpu":{"realtimeRuntime":1}}"#, "cpu.realtimeRuntime"),
            (r#"{"cpu":{"realtimePeriod":1}}"#, "cpu.realtimePeriod"),
            (r#"{"cpu":{"idle":-1}}"#, "cpu.idle"),
            (r#"{"blockIO":{"leafWeight":10}}"#, "blockIO.leafWeight"),
            (r#"{"blockIO":{"weight":1}}"#, "blockIO.weight"),
            (r#"{"network":{"classID":1}}"#, "network.classID"),
            (r#"{"unified":{"../x.y":"1"}}"#, "unified.../x.y"),
            (r#"{"unified":{"memory":"1"}}"#, "unified.memory"),
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert_eq!(error, format!("linux.resources.{field}"), "{json}");
        }
    }
}
