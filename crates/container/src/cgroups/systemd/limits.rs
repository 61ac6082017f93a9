//! Limits as properties of a unit (systemd.resource-control(5)). What systemd keeps itself it must
//! be told, or it would put its own values back when it next looks after the unit.

use std::collections::BTreeMap;

use runhcs_systemd::{Property, Value};

use crate::cgroups::limits::Setting;

/// systemd's word for no limit (`CGROUP_LIMIT_MAX`, `USEC_INFINITY`).
const INFINITY: u64 = u64::MAX;

/// A quota is a whole number of percents, that is of these microseconds a second, to systemd.
const PERCENT: u64 = 10_000;

/// The length of a quota's period in microseconds unless one is given.
const PERIOD: u64 = 100_000;

/// The properties for those of the settings that systemd knows; of several for the same property
/// the last counts. The quota in the settings is rounded up to what systemd can hold, so that both
/// agree.
pub(super) fn properties(settings: &mut [Setting], version: u32) -> Vec<Property> {
    let mut found = BTreeMap::new();
    let idle = settings.iter().any(|s| s.choices.iter().any(is_idle));
    for setting in settings.iter() {
        for (file, value) in &setting.choices {
            if let Some((name, value)) = property(file, value.trim()) {
                found.insert(name, value);
                break;
            }
        }
    }
    // 0 stands for idle since systemd 252.
    if idle && version >= 252 {
        found.insert("CPUWeight", Value::U64(0));
    }
    quota(settings, &mut found);
    found.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

fn is_idle((file, value): &(String, String)) -> bool {
    file == "cpu.idle" && value.trim() == "1"
}

/// The property for a control file's value.
fn property(file: &str, value: &str) -> Option<(&'static str, Value)> {
    let name = match file {
        "memory.max" => "MemoryMax",
        "memory.low" => "MemoryLow",
        "memory.high" => "MemoryHigh",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "memory.limit_in_bytes" => "MemoryLimit",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "cpu.shares" => "CPUShares",
        "blkio.weight" => "BlockIOWeight",
        "cpuset.cpus" | "cpuset.mems" => return cpuset(file, value),
        _ => return None,
    };
    let number = match value {
        "max" | "-1" => INFINITY,
        number => number.parse().ok()?,
    };
    // systemd takes no 0 here.
    let number = if name == "TasksMax" { number.max(1) } else { number };
    Some((name, Value::U64(number)))
}

/// A set of numbers as a mask, the lowest in the first byte's lowest bit.
fn cpuset(file: &str, value: &str) -> Option<(&'static str, Value)> {
    /// More than any kernel has.
    const MOST: usize = 1 << 16;
    let name = if file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
    let mut mask = Vec::new();
    for part in value.split(',').filter(|part| !part.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last >= MOST {
            return None;
        }
        for number in first..=last {
            if mask.len() <= number / 8 {
                mask.resize(number / 8 + 1, 0);
            }
            mask[number / 8] |= 1u8 << (number % 8);
        }
    }
    Some((name, Value::Bytes(mask)))
}

/// The quota and its period are two files in version 1 and one in version 2.
fn quota(settings: &mut [Setting], found: &mut BTreeMap<&'static str, Value>) {
    let (mut quota, mut period) = (None, None);
    for (file, value) in settings.iter().flat_map(|setting| &setting.choices) {
        match file.as_str() {
            "cpu.cfs_quota_us" => quota = value.trim().parse::<i64>().ok(),
            "cpu.cfs_period_us" => period = value.trim().parse::<u64>().ok(),
            "cpu.max" => {
                let mut fields = value.split_whitespace();
                quota = fields.next().map(|quota| quota.parse().unwrap_or(-1));
                period = fields.next().and_then(|period| period.parse().ok());
            }
            _ => {}
        }
    }
    if let Some(period) = period {
        found.insert("CPUQuotaPeriodUSec", Value::U64(period));
    }
    let length = period.unwrap_or(PERIOD);
    let Some(quota) = quota.and_then(|quota| u64::try_from(quota).ok()).filter(|q| *q != 0) else {
        if quota.is_some() || period.is_some() {
            found.insert("CPUQuotaPerSecUSec", Value::U64(INFINITY));
        }
        return;
    };
    let exact = u128::from(quota) * 1_000_000 / u128::from(length.max(1));
    let Ok(a_second) = u64::try_from(exact).map(|exact| exact.next_multiple_of(PERCENT)) else {
        return;
    };
    found.insert("CPUQuotaPerSecUSec", Value::U64(a_second));
    let rounded = u128::from(a_second) * u128::from(length) / 1_000_000;
    for (file, value) in settings.iter_mut().flat_map(|setting| &mut setting.choices) {
        match file.as_str() {
            "cpu.cfs_quota_us" => *value = rounded.to_string(),
            "cpu.max" => *value = format!("{rounded} {length}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::{v1_limits, v2_limits};

    fn convert(json: &str, version_2: bool) -> (Vec<(String, Value)>, Vec<Setting>) {
        let resources = serde_json::from_str(json).unwrap();
        let settings = if version_2 {
            v2_limits::settings(&resources)
        } else {
            v1_limits::settings(&resources)
        };
        let mut settings = settings.unwrap();
        let found = properties(&mut settings, 252);
        (found.into_iter().map(|(name, value)| (name.into_owned(), value)).collect(), settings)
    }

    fn numbers(list: &[(&str, u64)]) -> Vec<(String, Value)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), Value::U64(*value))).collect()
    }

    #[test]
    fn limits_of_version_2_are_told_to_systemd() {
        let (found, _) = convert(
            r#"{"memory":{"limit":100,"swap":150,"reservation":-1},"cpu":{"shares":1024},
                "pids":{"limit":7},"unified":{"memory.high":"5","pids.max":"9"}}"#,
            true,
        );
        let expected = numbers(&[
            ("CPUWeight", 100),
            ("MemoryHigh", 5),
            ("MemoryLow", INFINITY),
            ("MemoryMax", 100),
            ("MemorySwapMax", 50),
            ("TasksMax", 9),
        ]);
        assert_eq!(found, expected);
        let (found, _) = convert(r#"{"cpu":{"cpus":"0-2,9","mems":"1"}}"#, true);
        assert_eq!(found[0].1, Value::Bytes(vec![7, 2]));
        assert_eq!(found[1], ("AllowedMemoryNodes".to_owned(), Value::Bytes(vec![2])));
        assert_eq!(convert(r#"{"cpu":{"idle":1}}"#, true).0, numbers(&[("CPUWeight", 0)]));
    }

    #[test]
    fn limits_of_version_1_are_told_to_systemd() {
        let (found, _) = convert(
            r#"{"memory":{"limit":100,"reservation":5},"cpu":{"shares":9},"pids":{"limit":-1},
                "blockIO":{"weight":20}}"#,
            false,
        );
        let expected = numbers(&[
            ("BlockIOWeight", 20),
            ("CPUShares", 9),
            ("MemoryLimit", 100),
            ("TasksMax", INFINITY),
        ]);
        assert_eq!(found, expected);
    }

    #[test]
    fn quotas_are_rounded_to_what_systemd_can_hold() {
        for (json, period, a_second, file) in [
            (r#"{"quota":50000,"period":100000}"#, 100_000, 500_000, "50000 100000"),
            (r#"{"quota":4001,"period":10000}"#, 10_000, 410_000, "4100 10000"),
            (r#"{"period":20000}"#, 20_000, INFINITY, "max 20000"),
            (r#"{"quota":-1}"#, 100_000, INFINITY, "max 100000"),
        ] {
            let (found, settings) = convert(&format!(r#"{{"cpu":{json}}}"#), true);
            let expected =
                numbers(&[("CPUQuotaPerSecUSec", a_second), ("CPUQuotaPeriodUSec", period)]);
            assert_eq!(found, expected, "{json}");
            assert_eq!(settings[0].choices[0].1, file, "{json}");
        }
        let (found, settings) = convert(r#"{"cpu":{"quota":4001}}"#, false);
        assert_eq!(found, numbers(&[("CPUQuotaPerSecUSec", 50_000)]));
        assert_eq!(settings[0].choices[0].1, "5000");
    }
}
