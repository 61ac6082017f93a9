//! `linux.intelRdt`: the share of caches and of memory bandwidth that a container gets, by a group of
//! the kernel's resctrl file system (Documentation/arch/x86/resctrl.rst).

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use runhcs_compute::{ContainerId, Error, Result};
use serde::{Deserialize, Serialize};

use crate::error::{Context, invalid};
use crate::rootfs::mount_of_type;

/// What a container has in resctrl.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RdtGroup {
    /// The directory of its class of service.
    directory: PathBuf,
    /// Whether it was made for the container alone, and goes with it.
    own: bool,
    /// The directory of its monitoring group, which goes with it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitoring: Option<PathBuf>,
}

/// A checked `linux.intelRdt`.
#[derive(Debug)]
pub(crate) struct RdtPlan {
    group: RdtGroup,
    /// Lines for its `schemata`, in the order in which they are to be written.
    schemata: Vec<String>,
}

impl RdtPlan {
    /// # Errors
    /// Names the field that is wrong; says so if the host has no resctrl.
    pub(crate) fn new(rdt: &LinuxIntelRdt, id: &ContainerId) -> Result<Self> {
        let mounted = mount_of_type("resctrl").context(|| "look for resctrl".into())?;
        let root = mounted.ok_or_else(|| {
            let why = "no resctrl file system is mounted; if the processor has Intel RDT, \
                       `mount -t resctrl resctrl /sys/fs/resctrl` does it";
            invalid("linux.intelRdt", why)
        })?;
        Self::within(&root, rdt, id)
    }

    fn within(root: &Path, rdt: &LinuxIntelRdt, id: &ContainerId) -> Result<Self> {
        let field = |name: &str| format!("linux.intelRdt.{name}");
        let class = rdt.clos_id().as_deref().filter(|class| !class.is_empty());
        let (directory, own) = match class {
            None => (root.join(id.as_str()), true),
            Some("/") => (root.to_owned(), false),
            Some(class) if matches!(class, "." | "..") || class.contains(['/', '\n']) => {
                let why = format!("{class:?} is no name of a class of service");
                return Err(invalid(field("closID"), why));
            }
            Some(class) => (root.join(class), false),
        };
        let mut schemata =
            lines_of(rdt.l3_cache_schema().as_deref(), rdt.mem_bw_schema().as_deref())?;
        for (index, line) in rdt.schemata().iter().flatten().enumerate() {
            schemata.push(checked(field(&format!("schemata[{index}]")), line)?);
        }
        let monitored = rdt.enable_monitoring().unwrap_or(false);
        let monitoring = monitored.then(|| directory.join("mon_groups").join(id.as_str()));
        let schemata = schemata.into_iter().map(str::to_owned).collect();
        Ok(Self { group: RdtGroup { directory, own, monitoring }, schemata })
    }

    pub(crate) fn group(&self) -> &RdtGroup {
        &self.group
    }

    /// Makes what isn't there; an existing class has to have the schemata that are asked for.
    pub(crate) fn create(&self) -> Result<NewGroup> {
        let directory = &self.group.directory;
        let mut new = NewGroup::default();
        let exists = directory.is_dir();
        if exists && self.group.own {
            let why = "it exists already; linux.intelRdt.closID would have it used";
            return Err(Error::failed(format!("make {}", directory.display()), why));
        }
        if !exists && !self.group.own && self.schemata.is_empty() {
            let why = format!(
                "{} doesn't exist, and there are no schemata to make it with",
                directory.display()
            );
            return Err(invalid("linux.intelRdt.closID", why));
        }
        if exists {
            self.compare()?;
        } else {
            new.make(directory)?;
            self.group.write(self.schemata.iter().map(String::as_str))?;
        }
        if let Some(monitoring) = &self.group.monitoring {
            new.make(monitoring)?;
        }
        Ok(new)
    }

    fn compare(&self) -> Result<()> {
        if self.schemata.is_empty() {
            return Ok(());
        }
        let file = self.group.directory.join("schemata");
        let text = std::fs::read_to_string(&file).context(|| format!("read {}", file.display()))?;
        let present: Vec<_> = text.lines().filter_map(Schema::parse).collect();
        for line in &self.schemata {
            let wanted = Schema::parse(line);
            if !wanted
                .is_some_and(|wanted| present.iter().any(|present| wanted.is_part_of(present)))
            {
                let why = format!("the class of service exists and has not {line:?}, but {text:?}");
                return Err(invalid("linux.intelRdt.closID", why));
            }
        }
        Ok(())
    }
}

/// The lines of `l3CacheSchema` and `memBwSchema`, in the order in which they are to be written.
fn lines_of<'a>(cache: Option<&'a str>, bandwidth: Option<&'a str>) -> Result<Vec<&'a str>> {
    let mut lines = Vec::new();
    for (name, prefix, line) in [("l3CacheSchema", "L3", cache), ("memBwSchema", "MB:", bandwidth)]
    {
        let Some(line) = line.filter(|line| !line.is_empty()) else { continue };
        let field = format!("linux.intelRdt.{name}");
        if !line.starts_with(prefix) {
            return Err(invalid(field, format!("{line:?} doesn't begin with {prefix:?}")));
        }
        lines.push(checked(field, line)?);
    }
    Ok(lines)
}

/// A line that could be one of `schemata`.
fn checked(field: String, line: &str) -> Result<&str> {
    if line.contains('\n') {
        return Err(invalid(field, "contains a line break"));
    }
    if Schema::parse(line).is_none() {
        let why = format!("{line:?} is not of the form RESOURCE:DOMAIN=VALUE;…");
        return Err(invalid(field, why));
    }
    Ok(line)
}

/// Why the kernel refuses a schema it tells elsewhere.
fn refused(file: &Path, line: &str, error: &io::Error) -> Error {
    let status = file.parent().and_then(Path::parent).map(|root| root.join("info/last_cmd_status"));
    let said = status.and_then(|status| std::fs::read_to_string(status).ok());
    let said = said.map(|said| format!(": {}", said.trim())).unwrap_or_default();
    Error::failed(format!("write {line:?} to {}", file.display()), format!("{error}{said}"))
}

/// The directories that were just made. Dropping it takes them away, unless they are kept.
#[derive(Debug, Default)]
pub(crate) struct NewGroup(Vec<PathBuf>);

impl NewGroup {
    fn make(&mut self, directory: &Path) -> Result<()> {
        std::fs::create_dir(directory).map_err(|error| {
            let why = match error.raw_os_error() {
                Some(libc::ENOSPC) => ": the processor has no more groups",
                _ => "",
            };
            Error::failed(format!("make {}", directory.display()), format!("{error}{why}"))
        })?;
        self.0.push(directory.to_owned());
        Ok(())
    }

    pub(crate) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for NewGroup {
    fn drop(&mut self) {
        for directory in self.0.iter().rev() {
            // The error to report is the one that has led here.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

impl RdtGroup {
    /// Puts a process into it. Those that it forks later are in it too.
    pub(crate) fn add(&self, pid: u32) -> Result<()> {
        for directory in [Some(&self.directory), self.monitoring.as_ref()].into_iter().flatten() {
            let tasks = directory.join("tasks");
            std::fs::write(&tasks, pid.to_string())
                .context(|| format!("put process {pid} into {}", directory.display()))?;
        }
        Ok(())
    }

    /// Gives the class other schemata. Those that aren't named stay.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub(crate) fn update(&self, cache: Option<&str>, bandwidth: Option<&str>) -> Result<()> {
        self.write(lines_of(cache, bandwidth)?)
    }

    fn write<'a>(&self, lines: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let file = self.directory.join("schemata");
        lines.into_iter().try_for_each(|line| {
            std::fs::write(&file, format!("{line}\n")).map_err(|error| refused(&file, line, &error))
        })
    }

    /// Removes what goes with the container, if it is there.
    pub(crate) fn remove(&self) -> Result<()> {
        let own = self.own.then_some(&self.directory);
        for directory in [self.monitoring.as_ref(), own].into_iter().flatten() {
            match std::fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context(|| format!("remove {}", directory.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A line of `schemata`: what each domain of a resource may use.
#[derive(Debug, PartialEq)]
struct Schema<'a> {
    resource: &'a str,
    domains: Vec<(u32, &'a str)>,
}

impl<'a> Schema<'a> {
    /// The kernel aligns names and fills values up with zeros.
    fn parse(line: &'a str) -> Option<Self> {
        let (resource, domains) = line.split_once(':')?;
        let domain = |text: &'a str| {
            let (id, value) = text.split_once('=')?;
            let value = value.trim();
            let digits = value.trim_start_matches('0');
            let value = if digits.is_empty() { value.get(..1)? } else { digits };
            Some((id.trim().parse().ok()?, value))
        };
        let domains = domains.split(';').map(domain).collect::<Option<_>>()?;
        let resource = resource.trim();
        (!resource.is_empty()).then_some(Self { resource, domains })
    }

    /// Whether another says the same, of these domains.
    fn is_part_of(&self, other: &Schema<'_>) -> bool {
        let same = |(id, value): &(u32, &str)| {
            other.domains.iter().any(|(other, has)| other == id && has.eq_ignore_ascii_case(value))
        };
        self.resource == other.resource && self.domains.iter().all(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(root: &Path, json: &str) -> Result<RdtPlan> {
        let rdt = serde_json::from_str(json).unwrap();
        RdtPlan::within(root, &rdt, &"c1".parse().unwrap())
    }

    fn field_of(error: &Error) -> String {
        error.to_string()
    }

    #[test]
    fn a_group_without_a_class_is_the_containers_and_goes_with_it() {
        let root = tempfile::tempdir().unwrap();
        let plan =
            plan(root.path(), r#"{"l3CacheSchema":"L3:0=f","memBwSchema":"MB:0=20"}"#).unwrap();
        plan.create().unwrap().keep();
        let directory = root.path().join("c1");
        // An ordinary file keeps the last line; the kernel's takes each.
        assert_eq!(std::fs::read_to_string(directory.join("schemata")).unwrap(), "MB:0=20\n");
        let error = plan.create().unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("exists already"));
        plan.group().update(Some("L3:0=3"), None).unwrap();
        assert_eq!(std::fs::read_to_string(directory.join("schemata")).unwrap(), "L3:0=3\n");
        let error = plan.group().update(Some("L3:0=1"), Some("L3:0=1")).unwrap_err();
        assert_eq!(field_of(&error), "linux.intelRdt.memBwSchema");
        let kept = std::fs::read_to_string(directory.join("schemata")).unwrap();
        assert_eq!(kept, "L3:0=3\n", "both are checked first");
        plan.group().add(7).unwrap();
        assert_eq!(std::fs::read_to_string(directory.join("tasks")).unwrap(), "7");
        // resctrl's directories can be removed with the kernel's files in them.
        for file in ["schemata", "tasks"] {
            std::fs::remove_file(directory.join(file)).unwrap();
        }
        plan.group().remove().unwrap();
        assert!(!directory.exists());
        plan.group().remove().unwrap();
    }

    #[test]
    fn an_existing_class_is_joined_if_it_is_as_asked_for_and_stays() {
        let root = tempfile::tempdir().unwrap();
        let class = root.path().join("gold");
        let joins = r#"{"closID":"gold"}"#;
        let error = plan(root.path(), joins).unwrap().create().unwrap_err();
        assert_eq!(field_of(&error), "linux.intelRdt.closID");
        std::fs::create_dir(&class).unwrap();
        std::fs::write(class.join("schemata"), "    MB:0=100;1= 70\n    L3:0=00ff;1=0F0\n")
            .unwrap();
        for (json, fits) in [
            (joins, true),
            (r#"{"closID":"gold","l3CacheSchema":"L3:0=ff;1=f0","memBwSchema":"MB:1=70"}"#, true),
            (r#"{"closID":"gold","schemata":["L3:1=0f0"]}"#, true),
            (r#"{"closID":"gold","l3CacheSchema":"L3:0=f"}"#, false),
            (r#"{"closID":"gold","memBwSchema":"MB:2=70"}"#, false),
        ] {
            let plan = plan(root.path(), json).unwrap();
            assert_eq!(plan.create().map(NewGroup::keep).is_ok(), fits, "{json}");
            plan.group().remove().unwrap();
            assert!(class.is_dir());
        }
    }

    #[test]
    fn monitoring_groups_are_made_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let groups = root.path().join("mon_groups");
        std::fs::create_dir(&groups).unwrap();
        let plan = plan(root.path(), r#"{"closID":"/","enableMonitoring":true}"#).unwrap();
        let new = plan.create().unwrap();
        assert!(groups.join("c1").is_dir());
        drop(new);
        assert!(!groups.join("c1").exists(), "a failure undoes it");
        plan.create().unwrap().keep();
        plan.group().remove().unwrap();
        assert!(!groups.join("c1").exists() && root.path().is_dir());
    }

    #[test]
    fn nonsense_is_named_by_its_field() {
        let root = tempfile::tempdir().unwrap();
        for (json, field) in [
            (r#"{"closID":"a/b"}"#, "closID"),
            (r#"{"closID":".."}"#, "closID"),
            (r#"{"memBwSchema":"L3:0=1"}"#, "memBwSchema"),
            (r#"{"l3CacheSchema":"MB:0=1"}"#, "l3CacheSchema"),
            (r#"{"l3CacheSchema":"L3:0=1\nMB:0=1"}"#, "l3CacheSchema"),
            (r#"{"schemata":["L3:0=1","L3"]}"#, "schemata[1]"),
        ] {
            let error = plan(root.path(), json).unwrap_err();
            assert_eq!(field_of(&error), format!("linux.intelRdt.{field}"), "{json}");
        }
    }
}
