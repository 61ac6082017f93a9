//! The mounts of the process's mount namespace (proc_pid_mountinfo(5)).

use std::path::PathBuf;

/// A mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) id: u64,
    /// Where it is mounted, seen from the process's root.
    pub(super) point: String,
    /// `proc`, for example.
    pub(super) file_system: String,
}

/// All mounts, the earlier ones first.
#[derive(Debug)]
pub(super) struct MountTable(pub(super) Vec<Mount>);

impl MountTable {
    /// Reads it.
    pub(super) fn read() -> std::io::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self(text.lines().filter_map(parse).collect()))
    }
}

/// Where the first file system of a type is mounted.
pub(crate) fn mount_of_type(file_system: &str) -> std::io::Result<Option<PathBuf>> {
    let mut mounts = MountTable::read()?.0.into_iter();
    let found = mounts.find(|mount| mount.file_system == file_system);
    Ok(found.map(|mount| mount.point.into()))
}

fn parse(line: &str) -> Option<Mount> {
    let (of_mount, of_file_system) = line.split_once(" - ")?;
    let mut fields = of_mount.split(' ');
    Some(Mount {
        id: fields.next()?.parse().ok()?,
        point: unescape(fields.nth(3)?),
        file_system: of_file_system.split(' ').next()?.to_owned(),
    })
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_optional_fields_and_escapes() {
        let line = r"36 35 98:0 /x /mnt\0402\134 rw shared:1 master:2 - ext3 /dev/root rw";
        let mount = Mount { id: 36, point: r"/mnt 2\".into(), file_system: "ext3".into() };
        assert_eq!(parse(line), Some(mount));
        assert_eq!(parse("36 35 98:0 / /mnt rw"), None);
    }

    #[test]
    fn this_machines_has_a_procfs() {
        let table = MountTable::read().unwrap();
        assert!(table.0.iter().any(|mount| mount.file_system == "proc"), "{table:?}");
    }
}
