//! `linux.resources` as control files to be written. Everything that can be wrong with it without
//! asking the kernel is found here, before anything is made, and each error names the field.

use std::io;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;
use runhcs_compute::{Error, Result};

use super::device_filter::Rule;
use super::{CgroupPaths, device_rules, files, v1, v1_limits, v2_limits};
use crate::error::invalid;

/// One value for one control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The field of `config.json` it comes from.
    pub field: String,
    /// The controller it needs, by its name in version 1.
    pub controller: &'static str,
    /// Files and what to write to them. Kernels differ in which they have; the first one that
    /// exists is written.
    pub choices: Vec<(String, String)>,
    /// Whether a kernel that has none of the files does without.
    pub optional: bool,
}

impl Setting {
    pub(crate) fn new(
        field: impl Into<String>,
        controller: &'static str,
        file: impl Into<String>,
        value: impl ToString,
    ) -> Self {
        let choices = vec![(file.into(), value.to_string())];
        Self { field: field.into(), controller, choices, optional: false }
    }

    /// Writes `value` to `file` on a kernel that lacks the files given before.
    pub(crate) fn or(mut self, file: impl Into<String>, value: impl ToString) -> Self {
        self.choices.push((file.into(), value.to_string()));
        self
    }

    pub(crate) fn optional(mut self, optional: bool) -> Self {
        self.optional = optional;
        self
    }
}

/// A container's limits, checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    pub settings: Vec<Setting>,
    /// `None` if all devices are allowed.
    pub devices: Option<Vec<Rule>>,
    /// The memory limit, if it is to be refused when more is in use
    /// (`linux.resources.memory.checkBeforeUpdate`).
    pub check_usage: Option<u64>,
}

impl Limits {
    /// Reads `linux.resources` for the control groups at `paths`.
    pub(crate) fn parse(paths: &CgroupPaths, resources: Option<&LinuxResources>) -> Result<Self> {
        let Some(resources) = resources else { return Ok(Self::default()) };
        let settings = match paths {
            CgroupPaths::V1(directories) => {
                let settings = v1_limits::settings(resources)?;
                for setting in &settings {
                    let found = v1::directory(directories, setting.controller).is_some();
                    if !found && !setting.optional {
                        return Err(no_controller(setting));
                    }
                }
                settings
            }
            CgroupPaths::V2(_) => v2_limits::settings(resources)?,
            CgroupPaths::None if *resources == LinuxResources::default() => Vec::new(),
            CgroupPaths::None => {
                return Err(invalid(
                    "linux.resources",
                    "limits were asked for, but the container has no control groups",
                ));
            }
        };
        let memory = resources.memory().as_ref();
        let checked = memory.filter(|memory| memory.check_before_update() == Some(true));
        let limit = checked.and_then(|memory| memory.limit());
        Ok(Self {
            settings,
            devices: device_rules::parse(Some(resources))?,
            check_usage: limit.and_then(|limit| u64::try_from(limit).ok()).filter(|l| *l != 0),
        })
    }

    /// Refuses a memory limit below what is in use, if that is asked for.
    pub(crate) fn check(&self, paths: &CgroupPaths) -> Result<()> {
        let Some(limit) = self.check_usage else { return Ok(()) };
        match paths {
            CgroupPaths::V1(paths) => match v1::directory(paths, "memory") {
                Some(path) => files::check_usage(&path.join("memory.usage_in_bytes"), limit),
                None => Ok(()),
            },
            CgroupPaths::V2(path) => files::check_usage(&path.join("memory.current"), limit),
            CgroupPaths::None => Ok(()),
        }
    }

    /// Writes the settings, `locate` naming the directory of a setting's controller.
    ///
    /// The kernel checks related limits against each other at every write (a quota against its
    /// burst, memory against memory with swap), so the order that it accepts depends on what is
    /// set already. What it refuses as invalid is therefore tried again after the others, for as
    /// long as that gets further.
    pub(crate) fn write(&self, locate: impl Fn(&Setting) -> Option<PathBuf>) -> Result<()> {
        let mut pending: Vec<&Setting> = self.settings.iter().collect();
        while !pending.is_empty() {
            let mut refused = Vec::new();
            let mut first = None;
            for setting in &pending {
                match write_one(setting, &locate)? {
                    Ok(()) => {}
                    Err(error) => {
                        refused.push(*setting);
                        first.get_or_insert(error);
                    }
                }
            }
            if refused.len() == pending.len()
                && let Some(error) = first
            {
                return Err(error);
            }
            pending = refused;
        }
        Ok(())
    }
}

/// The inner error is the kernel's `EINVAL`, which another order may avoid.
fn write_one(
    setting: &Setting,
    locate: &impl Fn(&Setting) -> Option<PathBuf>,
) -> Result<std::result::Result<(), Error>> {
    let Some(directory) = locate(setting) else {
        return if setting.optional { Ok(Ok(())) } else { Err(no_controller(setting)) };
    };
    for (file, value) in &setting.choices {
        let path = directory.join(file);
        let failed = |error: io::Error| {
            let what = format!("{}: write {value:?} to {}", setting.field, path.display());
            Error::failed(what, error)
        };
        match files::write_existing(&path, value) {
            Ok(()) => return Ok(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                return Ok(Err(failed(error)));
            }
            Err(error) => return Err(failed(error)),
        }
    }
    if setting.optional {
        return Ok(Ok(()));
    }
    let names: Vec<&str> = setting.choices.iter().map(|(file, _)| file.as_str()).collect();
    Err(invalid(
        &setting.field,
        format!(
            "{} does not exist in {}; this kernel, or this cgroup, lacks what it takes",
            names.join(" or "),
            directory.display()
        ),
    ))
}

fn no_controller(setting: &Setting) -> Error {
    let why = format!("this system has no cgroup controller `{}`", setting.controller);
    invalid(&setting.field, why)
}

/// `pids.max` of both versions. A limit of 0 leaves room for the container's first process, as with
/// the systemd driver, whose `TasksMax` can't be less.
pub(crate) fn pids(resources: &LinuxResources) -> Option<Setting> {
    let value = match resources.pids().as_ref()?.limit() {
        ..0 => "max".to_owned(),
        limit => limit.max(1).to_string(),
    };
    Some(Setting::new("linux.resources.pids.limit", "pids", "pids.max", value))
}

/// A page size as `linux.resources.hugepageLimits` and the kernel's files have it: a number and
/// `KB`, `MB` or `GB`.
pub(crate) fn check_page_size(index: usize, size: &str) -> Result<()> {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    let valid = number.is_some_and(|number| {
        !number.is_empty() && !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit())
    });
    if valid {
        return Ok(());
    }
    Err(invalid(
        format!("linux.resources.hugepageLimits[{index}].pageSize"),
        format!("{size:?} is not a page size such as 64KB, 2MB or 1GB"),
    ))
}

/// The devices' rdma limits as lines of `rdma.max`, the same in both versions
/// (Documentation/admin-guide/cgroup-v2.rst, "RDMA Interface Files").
pub(crate) fn rdma(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name);
    let mut settings = Vec::new();
    for (name, limit) in devices {
        let field = format!("linux.resources.rdma.{name}");
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(invalid(field, "is not a device's name"));
        }
        let mut line = name.clone();
        for (key, value) in
            [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())]
        {
            if let Some(value) = value {
                line.push_str(&format!(" {key}={value}"));
            }
        }
        if line == *name {
            return Err(invalid(field, "has neither hcaHandles nor hcaObjects"));
        }
        settings.push(Setting::new(field, "rdma", "rdma.max", line));
    }
    Ok(settings)
}

/// `cpu.idle` of both versions.
pub(crate) fn idle(value: Option<i64>) -> Result<Option<Setting>> {
    let field = "linux.resources.cpu.idle";
    match value {
        None => Ok(None),
        Some(value @ (0 | 1)) => Ok(Some(Setting::new(field, "cpu", "cpu.idle", value))),
        Some(value) => Err(invalid(field, format!("{value} is neither 0 nor 1"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(file: &str, value: &str) -> Setting {
        Setting::new(format!("linux.{file}"), "cpu", file, value)
    }

    #[test]
    fn the_first_file_that_exists_is_written() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("new"), "").unwrap();
        let limits = Limits {
            settings: vec![setting("old", "1").or("new", "2"), setting("gone", "3").optional(true)],
            ..Limits::default()
        };
        limits.write(|_| Some(directory.path().to_owned())).unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("new")).unwrap(), "2");
        assert!(!directory.path().join("gone").exists());
    }

    #[test]
    fn what_is_missing_is_named_by_its_field() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { settings: vec![setting("gone", "1")], ..Limits::default() };
        let error = limits.write(|_| Some(directory.path().to_owned())).unwrap_err();
        assert!(crate::error::chain(&error).starts_with("linux.gone: gone does not exist"));
        let error = limits.write(|_| None).unwrap_err();
        assert!(crate::error::chain(&error).contains("no cgroup controller `cpu`"));
    }

    #[test]
    fn page_sizes() {
        for size in ["2MB", "1GB", "64KB"] {
            check_page_size(0, size).unwrap();
        }
        for size in ["", "MB", "2", "2mb", "../MB", "-2MB", "02MB"] {
            let error = check_page_size(3, size).unwrap_err().to_string();
            assert_eq!(error, "linux.resources.hugepageLimits[3].pageSize");
        }
    }
}
