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

    /// Where something is mounted below `path`, which leads through no symbolic link; relative to
    /// it, and what holds others before these.
    pub fn below(&self, path: &Path) -> Vec<PathBuf> {
        let relative = self.0.iter().filter_map(|point| point.strip_prefix(path).ok());
        let mut points: Vec<PathBuf> =
            relative.filter(|point| *point != Path::new("")).map(Path::to_owned).collect();
        points.sort();
        // There may be several mounts at one place.
        points.dedup();
        points
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
              24 22 0:22 / /abc rw - tmpfs t rw\n\
              25 23 0:23 / /a/b\\040c/d rw - tmpfs t rw\n\
              26 25 0:24 / /a/b\\040c/d rw - tmpfs t rw\n\
              27 22 0:25 / /a/a rw - tmpfs t rw\n",
        );
        let below = |path: &str| points.below(Path::new(path));
        assert_eq!(below("/").len(), 4);
        assert_eq!(below("/a"), ["a", "b c", "b c/d"].map(PathBuf::from));
        assert_eq!(below("/a/b c"), [PathBuf::from("d")]);
        assert!(below("/ab").is_empty());
    }
}
