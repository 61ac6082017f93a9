//! The ids of a user namespace: which of the caller's ids they are (user_namespaces(7)).

use std::io;
use std::path::PathBuf;
use std::process::Command;

use oci_spec::runtime::{LinuxIdMapping, Spec};
use runhcs_compute::{Error, Result};

use crate::error::{Context, invalid};
use crate::proc;

/// The mappings of a user namespace.
#[derive(Debug)]
pub(crate) struct IdMaps {
    users: Map,
    groups: Map,
}

/// Users or groups.
#[derive(Debug)]
struct Map {
    field: String,
    file: &'static str,
    /// The program that an ordinary user has to have the mapping written by, if it is needed:
    /// newuidmap(1), newgidmap(1).
    program: Option<&'static str>,
    mappings: Vec<LinuxIdMapping>,
}

impl IdMaps {
    /// Reads `linux.uidMappings` and `linux.gidMappings`, and checks that the ids which the
    /// configuration uses are mapped.
    pub(crate) fn new(spec: &Spec) -> Result<Self> {
        let maps = Self::of_container(spec)?;
        if let Some(process) = spec.process() {
            let user = process.user();
            maps.users.require("process.user.uid", user.uid())?;
            maps.groups.require("process.user.gid", user.gid())?;
            for (index, gid) in user.additional_gids().iter().flatten().enumerate() {
                maps.groups.require(&format!("process.user.additionalGids[{index}]"), *gid)?;
            }
        }
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            for (number, option) in mount.options().iter().flatten().enumerate() {
                let map = match option.split_once('=') {
                    Some(("uid", id)) => Some((&maps.users, id)),
                    Some(("gid", id)) => Some((&maps.groups, id)),
                    _ => None,
                };
                // What is no number is the file system's to refuse.
                if let Some((map, Ok(id))) = map.map(|(map, id)| (map, id.parse())) {
                    map.require(&format!("mounts[{index}].options[{number}]"), id)?;
                }
            }
        }
        Ok(maps)
    }

    /// Reads `linux.uidMappings` and `linux.gidMappings`.
    pub(crate) fn of_container(spec: &Spec) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let users = linux.and_then(|linux| linux.uid_mappings().as_ref());
        Self::parse("linux", users, linux.and_then(|linux| linux.gid_mappings().as_ref()))
    }

    /// Reads the `uidMappings` and `gidMappings` of the object at `field`.
    pub(crate) fn parse(
        field: &str,
        users: Option<&Vec<LinuxIdMapping>>,
        groups: Option<&Vec<LinuxIdMapping>>,
    ) -> Result<Self> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let own = |id: u32| (!uid.is_root()).then_some(id);
        let map = |name: &str, file, program, mappings, own| {
            Map::new((&format!("{field}.{name}"), file, program), mappings, own)
        };
        Ok(Self {
            users: map("uidMappings", "uid_map", "newuidmap", users, own(uid.as_raw()))?,
            groups: map("gidMappings", "gid_map", "newgidmap", groups, own(gid.as_raw()))?,
        })
    }

    /// Refuses a user namespace, that of the process, which has other ids.
    pub(crate) fn compare(&self, pid: u32) -> Result<()> {
        self.users.compare(pid)?;
        self.groups.compare(pid)
    }

    /// The caller's id for a user of the namespace.
    pub(crate) fn host_uid(&self, uid: u32) -> Option<u32> {
        self.users.mappings.iter().find_map(|mapping| {
            let offset = uid.checked_sub(mapping.container_id())?;
            (offset < mapping.size()).then(|| mapping.host_id() + offset)
        })
    }

    /// Gives the process's new user namespace its ids.
    pub(crate) fn write(&self, pid: u32) -> Result<()> {
        if !rustix::process::geteuid().is_root() && self.groups.program.is_none() {
            // Without it the kernel takes no mapping of groups from an ordinary user; otherwise
            // who is denied a file by a group could leave the group.
            proc::write(&PathBuf::from(format!("{pid}/setgroups")), "deny")?;
        }
        self.users.write(pid)?;
        self.groups.write(pid)
    }
}

impl Map {
    /// `own` is the only id that the caller may map by itself, if it is an ordinary user.
    fn new(
        (field, file, program): (&str, &'static str, &'static str),
        mappings: Option<&Vec<LinuxIdMapping>>,
        own: Option<u32>,
    ) -> Result<Self> {
        let mappings = mappings.cloned().unwrap_or_default();
        if mappings.is_empty() {
            return Err(invalid(field, "is needed to map ids, and is empty"));
        }
        for (index, mapping) in mappings.iter().enumerate() {
            let end = |start: u32| start.checked_add(mapping.size());
            let fits = end(mapping.container_id()).is_some() && end(mapping.host_id()).is_some();
            if mapping.size() == 0 || !fits {
                let why = format!("maps {} ids, which is out of range", mapping.size());
                return Err(invalid(format!("{field}[{index}].size"), why));
            }
        }
        for (index, mapping) in mappings.iter().enumerate() {
            for other in &mappings[..index] {
                let overlap = |a: u32, b: u32| a < b + other.size() && b < a + mapping.size();
                if overlap(mapping.container_id(), other.container_id())
                    || overlap(mapping.host_id(), other.host_id())
                {
                    let why = "maps an id that another entry maps";
                    return Err(invalid(format!("{field}[{index}]"), why));
                }
            }
        }
        let by_itself = own.is_none_or(
            |own| matches!(mappings.as_slice(), [one] if one.size() == 1 && one.host_id() == own),
        );
        Ok(Self {
            field: field.to_owned(),
            file,
            program: (!by_itself).then_some(program),
            mappings,
        })
    }

    fn require(&self, field: &str, id: u32) -> Result<()> {
        let contains =
            |m: &LinuxIdMapping| (m.container_id()..m.container_id() + m.size()).contains(&id);
        if self.mappings.iter().any(contains) {
            return Ok(());
        }
        Err(invalid(field, format!("{id} is not mapped by {}", self.field)))
    }

    /// In whatever order: that is the kernel's own affair.
    fn compare(&self, pid: u32) -> Result<()> {
        let path = format!("/proc/{pid}/{}", self.file);
        let text = std::fs::read_to_string(&path).context(|| format!("read {path}"))?;
        let line = |line: &str| line.split_whitespace().map(|n| n.parse().ok()).collect();
        let mut theirs: Vec<Option<Vec<u32>>> = text.lines().map(line).collect();
        let mut given: Vec<_> = self.mappings.iter().map(|m| Some(numbers(m).to_vec())).collect();
        theirs.sort_unstable();
        given.sort_unstable();
        if theirs == given {
            return Ok(());
        }
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let why = format!(
            "the user namespace that linux.namespaces has joined maps other ids: {}; give those, or \
             leave the mappings out",
            lines.join(", ")
        );
        Err(invalid(self.field.clone(), why))
    }

    fn write(&self, pid: u32) -> Result<()> {
        let Some(program) = self.program else {
            let line = |m| numbers(m).map(|n| n.to_string()).join(" ") + "\n";
            let text: String = self.mappings.iter().map(line).collect();
            let path = PathBuf::from(format!("{pid}/{}", self.file));
            return proc::write(&path, &text).context(|| self.field.clone());
        };
        let numbers = self.mappings.iter().flat_map(numbers).map(|number| number.to_string());
        let output = Command::new(program).arg(pid.to_string()).args(numbers).output();
        let failed = |why: String| Error::failed(format!("{}: run {program}", self.field), why);
        let output = output.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => failed(
                "it is not installed (package uidmap or shadow-utils); without it an ordinary \
                 user can map only the own id"
                    .into(),
            ),
            _ => failed(error.to_string()),
        })?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let file = if self.file == "uid_map" { "/etc/subuid" } else { "/etc/subgid" };
        Err(failed(format!("{}: {}; see {file}", output.status, stderr.trim())))
    }
}

/// As the kernel's files have them.
fn numbers(mapping: &LinuxIdMapping) -> [u32; 3] {
    [mapping.container_id(), mapping.host_id(), mapping.size()]
}

/// Whether the caller is in a user namespace other than the first, whose ids are all ids.
pub fn in_user_namespace() -> bool {
    let whole = |line: &str| line.split_whitespace().eq(["0", "0", "4294967295"]);
    crate::proc::read_short("/proc/self/uid_map").is_ok_and(|map| !map.lines().any(whole))
}

/// Whether the caller's user namespace lets the list of groups be changed.
pub(crate) fn may_set_groups() -> bool {
    // Kernels without user namespaces have no such file.
    std::fs::read_to_string("/proc/self/setgroups").map_or(true, |text| text.trim() == "allow")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(own: Option<u32>, mappings: &[[u32; 3]]) -> Result<Map> {
        let mappings: Vec<LinuxIdMapping> = mappings
            .iter()
            .map(|[container, host, size]| {
                let json = serde_json::json!({
                    "containerID": container, "hostID": host, "size": size
                });
                serde_json::from_value(json).unwrap()
            })
            .collect();
        Map::new(("linux.uidMappings", "uid_map", "newuidmap"), Some(&mappings), own)
    }

    #[test]
    fn an_ordinary_user_maps_the_own_id_alone_and_the_rest_by_a_program() {
        let program = |own, mappings: &[[u32; 3]]| map(own, mappings).unwrap().program;
        assert_eq!(program(Some(1000), &[[0, 1000, 1]]), None);
        assert_eq!(program(Some(1000), &[[0, 1000, 2]]), Some("newuidmap"));
        assert_eq!(program(Some(1000), &[[0, 1001, 1]]), Some("newuidmap"));
        assert_eq!(program(Some(1000), &[[0, 1000, 1], [1, 100_000, 65536]]), Some("newuidmap"));
        assert_eq!(program(None, &[[0, 100_000, 65536]]), None);
    }

    #[test]
    fn ids_out_of_range_or_without_a_mapping_are_named() {
        let error = map(None, &[[0, 5, 1], [1, u32::MAX, 2]]).unwrap_err();
        assert_eq!(error.to_string(), "linux.uidMappings[1].size");
        assert!(map(None, &[[0, 5, 0]]).is_err());
        assert!(map(None, &[]).is_err());
        for overlapping in [[[0, 5, 2], [1, 9, 1]], [[0, 5, 2], [5, 6, 1]]] {
            let error = map(None, &overlapping).unwrap_err();
            assert_eq!(error.to_string(), "linux.uidMappings[1]");
        }
        let map = map(None, &[[0, 5, 1], [10, 20, 5]]).unwrap();
        assert!(map.require("x", 0).is_ok() && map.require("x", 14).is_ok());
        assert!(map.require("x", 1).is_err() && map.require("x", 15).is_err());
    }
}
