//! The options of `update`, as runc has them, and the resources that they stand for.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use oci_spec::runtime::LinuxResources;
use runhcs_compute::ContainerId;
use serde_json::{Map, Value, json};

/// New limits for a container.
#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// The container's id.
    pub id: ContainerId,
    /// File with `linux.resources` as JSON, - for standard input; other options
    /// of limits are ignored.
    #[arg(long, short, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight of block IO, 10 to 1000.
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// Period of the CPU quota, in microseconds.
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// CPU time in each period, in microseconds; -1 for no limit.
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// CPU time beyond the quota that can be saved up, in microseconds.
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_burst: Option<u64>,
    /// CPU shares, 2 to 262144.
    #[arg(long, visible_alias = "cpu-shares", value_name = "SHARES")]
    pub cpu_share: Option<u64>,
    /// Period of real-time scheduling, in microseconds.
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_period: Option<u64>,
    /// Real-time CPU time in each period, in microseconds.
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs to run on, such as 0-2,4.
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use, such as 0-1.
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// 1 to run only when nothing else wants to, 0 to run as usual.
    #[arg(long, value_name = "0|1")]
    pub cpu_idle: Option<i64>,
    /// Memory, in bytes or as 512M; -1 for no limit.
    #[arg(long, short = 'm', value_name = "SIZE", value_parser = size, allow_negative_numbers = true)]
    pub memory: Option<i64>,
    /// Memory kept for the container, in bytes or as 512M.
    #[arg(long, value_name = "SIZE", value_parser = size, allow_negative_numbers = true)]
    pub memory_reservation: Option<i64>,
    /// Memory and swap together, in bytes or as 512M; -1 for no limit.
    #[arg(long, value_name = "SIZE", value_parser = size, allow_negative_numbers = true)]
    pub memory_swap: Option<i64>,
    /// Processes and threads; -1 for no limit.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
    /// Ignored: kernels no longer limit kernel memory apart.
    #[arg(long, hide = true)]
    pub kernel_memory: Option<String>,
    /// Ignored: kernels no longer limit kernel memory apart.
    #[arg(long, hide = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Schema of the third-level cache (Intel RDT), for a container that has linux.intelRdt.
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Schema of memory bandwidth (Intel RDT), for a container that has linux.intelRdt.
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
}

impl UpdateArgs {
    /// The resources that the options, or the file, name.
    pub fn read(&self) -> Result<LinuxResources> {
        let Some(path) = &self.resources else { return self.options() };
        runhcs_spec::load_resources(path).context("read the resources")
    }

    fn options(&self) -> Result<LinuxResources> {
        let resources = json!({
            "memory": object([
                ("limit", self.memory.map(Value::from)),
                ("reservation", self.memory_reservation.map(Value::from)),
                ("swap", self.memory_swap.map(Value::from)),
            ]),
            "cpu": object([
                ("shares", self.cpu_share.map(Value::from)),
                ("quota", self.cpu_quota.map(Value::from)),
                ("period", self.cpu_period.map(Value::from)),
                ("burst", self.cpu_burst.map(Value::from)),
                ("realtimePeriod", self.cpu_rt_period.map(Value::from)),
                ("realtimeRuntime", self.cpu_rt_runtime.map(Value::from)),
                ("cpus", self.cpuset_cpus.clone().map(Value::from)),
                ("mems", self.cpuset_mems.clone().map(Value::from)),
                ("idle", self.cpu_idle.map(Value::from)),
            ]),
            "pids": object([("limit", self.pids_limit.map(Value::from))]),
            "blockIO": object([("weight", self.blkio_weight.map(Value::from))]),
        });
        runhcs_spec::resources_from(&resources).context("read the options")
    }
}

/// An object of the fields that are given; nothing if none is.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Option<Map<String, Value>> {
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let object: Map<_, _> = given.collect();
    (!object.is_empty()).then_some(object)
}

/// Bytes, or a number with a unit of 1024: `k`, `m`, `g`, `t` or `p`, which may go on as `b` or
/// `ib`. -1 is no limit.
fn size(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let malformed = || format!("{text:?} is not a size such as 1048576, 512M or 1.5G, nor -1");
    let lower = text.to_ascii_lowercase();
    let split = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
    let (number, unit) = (lower[..split].trim_end(), &lower[split..]);
    let exponent = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(malformed()),
    };
    if let (Ok(whole), 0) = (number.parse::<u64>(), exponent) {
        return i64::try_from(whole).map_err(|_| malformed());
    }
    let number: f64 = number.parse().map_err(|_| malformed())?;
    let bytes = number * 1024f64.powi(exponent);
    // What comes near to the greatest number is no size of this world's.
    if !(0.0..9e18).contains(&bytes) {
        return Err(malformed());
    }
    Ok(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("-1", -1),
            ("1048576", 1 << 20),
            ("512M", 512 << 20),
            ("512mb", 512 << 20),
            ("2GiB", 2 << 30),
            ("1.5k", 1536),
            ("4 m", 4 << 20),
            ("9007199254740993", 9_007_199_254_740_993),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-2", "1x", "1mm", "1e99", "99999999999999999999", "nan", "12ibb"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    fn read(options: &[&str]) -> LinuxResources {
        use clap::Parser;
        let line = ["runhcs", "update"].iter().chain(options).chain(&["box"]);
        match crate::cli::Cli::parse_from(line).verb {
            crate::cli::Verb::System(super::super::cli::Verb::Update(args)) => args.read().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_is_given_is_set() {
        let resources = read(&["--memory", "5", "--cpu-idle", "1", "--pids-limit", "-1"]);
        assert_eq!(resources.memory().as_ref().unwrap().limit(), Some(5));
        assert_eq!(resources.cpu().as_ref().unwrap().idle(), Some(1));
        assert_eq!(resources.pids().as_ref().unwrap().limit(), -1);
        assert!(resources.block_io().is_none());
        assert_eq!(read(&[]), LinuxResources::default());
    }
}
