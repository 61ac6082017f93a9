//! Control groups that systemd makes: a scope (systemd.scope(5)) around the container's first
//! process. systemd knows only some limits, and on version 1 only some hierarchies; the rest is
//! done beside it, which `Delegate=yes` allows (systemd's "Control Group APIs and Delegation").

mod annotations;
mod devices;
mod limits;

use std::path::Path;

use runhcs_compute::{ContainerId, Result};
use runhcs_systemd::{Manager, Property, SliceName, UnitName, Value, Whose};
use serde::{Deserialize, Serialize};

use super::{Cgroup, CgroupPaths, Limits, Request};
use crate::error::{Context, invalid};

/// The unit that holds a container's processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemdScope {
    /// Whose manager has it.
    whose: Whose,
    /// Its name.
    unit: UnitName,
}

/// What a scope is started with.
#[derive(Clone, Debug)]
pub(crate) struct ScopeOptions {
    slice: SliceName,
    /// Limits and what annotations ask for.
    properties: Vec<Property>,
}

/// The slice and the unit that `linux.cgroupsPath` names as `slice:prefix:name`.
#[derive(Debug, PartialEq)]
struct Place {
    slice: SliceName,
    unit: UnitName,
}

impl Place {
    /// Without a path the unit is named after the container, in the slice where containers of this
    /// kind of user are; as runc has it.
    fn parse(id: &ContainerId, configured: Option<&Path>, whose: Whose) -> Result<Self> {
        let usual = match whose {
            Whose::System => "system.slice",
            Whose::User => "user.slice",
        };
        let text = configured.map(|path| path.to_string_lossy().into_owned());
        let text = text.filter(|text| !text.is_empty());
        let default = || format!("{usual}:runhcs:{}", escape(id.as_str()));
        let text = text.unwrap_or_else(default);
        let field = "linux.cgroupsPath";
        let parts: Vec<&str> = text.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            let why =
                format!("{text:?} is not of the form slice:prefix:name, which goes with systemd");
            return Err(invalid(field, why));
        };
        if name.is_empty() || name.ends_with(".slice") {
            let why = format!("{text:?} names no scope: a container is no slice");
            return Err(invalid(field, why));
        }
        let slice = if slice.is_empty() { usual } else { slice };
        let dash = if prefix.is_empty() { "" } else { "-" };
        let unit = format!("{prefix}{dash}{name}.scope");
        Ok(Self {
            slice: SliceName::new(slice).context(|| field.into())?,
            unit: UnitName::new(unit).context(|| field.into())?,
        })
    }
}

/// An id as a unit's name may have it (systemd-escape(1)); of what ids hold only `+` is strange.
fn escape(id: &str) -> String {
    id.replace('+', "\\x2b")
}

/// Works out the scope and its control groups. Without `with_devices` devices aren't restricted.
pub(crate) fn plan(
    request: &Request<'_>,
    whose: Whose,
    with_devices: bool,
) -> Result<(Cgroup, ScopeOptions, Limits)> {
    let Request { id, path: configured, resources, annotations, .. } = *request;
    let Place { slice, unit } = Place::parse(id, configured, whose)?;
    let scope = SystemdScope { whose, unit };
    let mut manager = scope.manager()?;
    let base = manager.control_group().context(|| "ask systemd for its control group".into())?;
    let path = Path::new("/").join(base).join(slice.path()).join(scope.unit.as_str());
    let paths = CgroupPaths::of_hierarchy(&path)?;
    match (&paths, whose) {
        (CgroupPaths::V2(_), _) | (CgroupPaths::V1(_), Whose::System) => {}
        (CgroupPaths::V1(_), Whose::User) => {
            return Err(invalid(
                "--systemd-cgroup",
                "a user's own systemd has control groups of version 2 only, and this system has \
                 version 1",
            ));
        }
        (CgroupPaths::None, _) => {
            return Err(invalid("--systemd-cgroup", "no cgroup hierarchy is mounted"));
        }
    }
    let mut limits = Limits::parse(&paths, resources)?;
    let version = manager.version().context(|| "ask systemd for its version".into())?;
    let mut properties = limits::properties(&mut limits.settings, version);
    if !with_devices {
        limits.devices = None;
    }
    if let Some(rules) = &limits.devices {
        properties.extend(devices::properties(rules, &devices::names()));
    }
    properties.extend(annotations::properties(annotations)?);
    Ok((Cgroup { paths, scope: Some(scope) }, ScopeOptions { slice, properties }, limits))
}

impl SystemdScope {
    fn manager(&self) -> Result<Manager> {
        Manager::connect(self.whose).context(|| match self.whose {
            Whose::System => "reach systemd for --systemd-cgroup".into(),
            Whose::User => "reach the user's systemd for --systemd-cgroup".into(),
        })
    }

    fn what(&self, operation: &str) -> String {
        format!("have systemd {operation} {}", self.unit.as_str())
    }

    /// Whether the caller may not move processes between control groups by itself.
    pub(crate) fn is_users(&self) -> bool {
        self.whose == Whose::User
    }

    /// Starts it with a process in it.
    pub(crate) fn start(
        &self,
        id: &ContainerId,
        pid: u32,
        version_2: bool,
        options: &ScopeOptions,
    ) -> Result<()> {
        let block_io = if version_2 { "IOAccounting" } else { "BlockIOAccounting" };
        let mut properties: Vec<Property> = vec![
            ("Description".into(), Value::Text(format!("runhcs container {id}"))),
            ("Slice".into(), Value::Text(options.slice.as_str().into())),
            ("Delegate".into(), Value::Bool(true)),
            ("DefaultDependencies".into(), Value::Bool(false)),
            ("PIDs".into(), Value::U32s(vec![pid])),
            // A controller that is to count has to be there from the beginning.
            ("MemoryAccounting".into(), Value::Bool(true)),
            ("CPUAccounting".into(), Value::Bool(true)),
            ("TasksAccounting".into(), Value::Bool(true)),
            (block_io.into(), Value::Bool(true)),
        ];
        properties.extend(options.properties.iter().cloned());
        self.manager()?.start(&self.unit, &properties).context(|| self.what("start"))
    }

    /// Changes what systemd knows of limits, so that it doesn't put the old ones back. A quota is
    /// rounded to what systemd can hold.
    pub(crate) fn update(&self, limits: &mut Limits) -> Result<()> {
        let mut manager = self.manager()?;
        let version = manager.version().context(|| "ask systemd for its version".into())?;
        let properties = limits::properties(&mut limits.settings, version);
        if properties.is_empty() {
            return Ok(());
        }
        manager.set(&self.unit, &properties).context(|| self.what("change the limits of"))
    }

    /// Moves a process into its group, or into one below.
    pub(crate) fn attach(&self, pid: u32, below: &Path) -> Result<()> {
        let below = match below.to_string_lossy() {
            path if path.is_empty() => String::new(),
            path => format!("/{path}"),
        };
        self.manager()?.attach(&self.unit, &below, pid).context(|| self.what("move a process into"))
    }

    /// Stops it, however far its start got.
    pub(crate) fn stop(&self) -> Result<()> {
        self.manager()?.stop(&self.unit).context(|| self.what("stop"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Result<Place> {
        Place::parse(&"b+x".parse().unwrap(), Some(Path::new(path)), Whose::System)
    }

    #[test]
    fn a_path_names_a_slice_and_a_scope() {
        for (path, slice, unit) in [
            ("machine.slice:libpod:5", "machine.slice", "libpod-5.scope"),
            (":runc:a", "system.slice", "runc-a.scope"),
            ("a-b.slice::c", "a-b.slice", "c.scope"),
            ("", "system.slice", "runhcs-b\\x2bx.scope"),
        ] {
            let place = parse(path).unwrap();
            assert_eq!((place.slice.as_str(), place.unit.as_str()), (slice, unit), "{path}");
        }
    }

    #[test]
    fn other_paths_are_refused_by_the_fields_name() {
        for path in [
            "/a/b",
            "a:b",
            "a.slice:b:c:d",
            "a:b:c",
            "a.slice:b:",
            "a.slice:b:c.slice",
            "a.slice:/:b",
        ] {
            assert_eq!(parse(path).unwrap_err().to_string(), "linux.cgroupsPath", "{path}");
        }
    }
}
