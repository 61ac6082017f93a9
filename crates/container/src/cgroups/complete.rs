//! Limits that share a control file: changing one of them must not change the other.

use std::path::Path;

use oci_spec::runtime::LinuxResources;
use runhcs_compute::Result;

use super::{Cgroup, CgroupPaths, v1};
use crate::error::Context;

impl Cgroup {
    /// Adds what `resources` doesn't say to what it does, where one place holds both: the quota and
    /// the period are in `cpu.max` of version 2, and systemd reckons with both.
    pub(crate) fn complete(&self, resources: &LinuxResources) -> Result<LinuxResources> {
        let mut resources = resources.clone();
        let Some(cpu) = resources.cpu_mut() else { return Ok(resources) };
        let quota = cpu.quota().filter(|quota| *quota != 0);
        let period = cpu.period().filter(|period| *period != 0);
        if quota.is_some() == period.is_some() {
            return Ok(resources);
        }
        let Some((old_quota, old_period)) = self.quota_and_period()? else { return Ok(resources) };
        cpu.set_quota(quota.or(old_quota));
        cpu.set_period(period.or(old_period));
        Ok(resources)
    }

    /// What is set now, where setting one of them takes both.
    fn quota_and_period(&self) -> Result<Option<(Option<i64>, Option<u64>)>> {
        let read = |file: &Path| {
            std::fs::read_to_string(file)
                .context(|| format!("read what is set in {}", file.display()))
        };
        match &self.paths {
            CgroupPaths::V2(path) => read(&path.join("cpu.max")).map(|text| Some(parse(&text))),
            CgroupPaths::V1(paths) if self.scope.is_some() => {
                let Some(path) = v1::directory(paths, "cpu") else { return Ok(None) };
                let quota = read(&path.join("cpu.cfs_quota_us"))?.trim().parse().ok();
                let period = read(&path.join("cpu.cfs_period_us"))?.trim().parse().ok();
                Ok(Some((quota, period)))
            }
            _ => Ok(None),
        }
    }
}

/// `$MAX $PERIOD` (Documentation/admin-guide/cgroup-v2.rst); `max` is no quota, -1.
fn parse(text: &str) -> (Option<i64>, Option<u64>) {
    let mut fields = text.split_whitespace();
    let quota = fields.next().map(|quota| quota.parse().unwrap_or(-1));
    (quota, fields.next().and_then(|period| period.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_half_keeps_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let cgroup = Cgroup { paths: CgroupPaths::V2(directory.path().to_owned()), scope: None };
        let complete = |set: &str, json: &str| {
            std::fs::write(directory.path().join("cpu.max"), set).unwrap();
            let resources = cgroup.complete(&serde_json::from_str(json).unwrap()).unwrap();
            let cpu = resources.cpu().clone().unwrap();
            (cpu.quota(), cpu.period())
        };
        let quota = r#"{"cpu":{"quota":7000}}"#;
        assert_eq!(complete("max 50000\n", quota), (Some(7000), Some(50_000)));
        let period = r#"{"cpu":{"period":9000}}"#;
        assert_eq!(complete("4000 50000\n", period), (Some(4000), Some(9000)));
        assert_eq!(complete("max 50000\n", period), (Some(-1), Some(9000)));
        assert_eq!(complete("1 2\n", r#"{"cpu":{"shares":5}}"#), (None, None));
    }
}
