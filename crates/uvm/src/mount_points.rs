//! What is mounted where, as this process sees it: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The places where something is mounted.
#[derive(Debug)]
pub struct MountPoints(Vec<PathBuf>);

impl MountPoints {
    /// Reads them.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read("/proc/self/mountinfo")?))
    }

    fn parse(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n');
        let fields = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
        Self(fields.map(|field| PathBuf::from(OsString::from_vec(unescape(field)))).collect())
    }

    /// Whether something is mounted below `path`, which leads through no symbolic link.
    pub fn any_below(&self, path: &Path) -> bool {
        self.0.iter().any(|point| point != path && point.starts_with(path))
    }
}

/// The kernel writes blanks, backslashes and the like as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let octal = after.first_chunk::<3>().filter(|_| *first == b'\\').and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        match octal {
            Some(byte) => (plain.push(byte), rest = &after[3..]),
            None => (plain.push(*first), rest = after),
        };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_are_found() {
        let points = MountPoints::parse(
            b"22 1 254:0 / / rw - ext4 /dev/vda rw\n\
              23 22 0:21 / /a/b\\040c rw shared:5 - tmpfs t rw\n\
              24 22 0:22 / /abc rw - tmpfs t rw\n",
        );
        assert!(points.any_below(Path::new("/")));
        assert!(points.any_below(Path::new("/a")));
        assert!(!points.any_below(Path::new("/a/b c")));
        assert!(!points.any_below(Path::new("/ab")));
    }
}
