//! The container's `/etc/passwd` (passwd(5)), which anybody may have written.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{FileType, OFlags};

use crate::rootfs::resolve::Root;

/// The most of it that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// The home of a user; `None` if the file doesn't say. The caller is in the container's root.
pub(crate) fn home(uid: u32) -> Option<String> {
    // A FIFO in its place would block who opens it, or reads it; and a link to one of this
    // process's descriptors is none of the image's files.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let root = Root::open(Path::new("/")).ok()?;
    let file = root.open_at(Path::new("/etc/passwd"), flags).ok()?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode);
    if kind != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    File::from(file).take(LIMIT).read_to_end(&mut bytes).ok()?;
    find(&String::from_utf8_lossy(&bytes), uid)
}

fn find(text: &str, uid: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, user, _, _, home, ..] = fields[..] else { return None };
        let found = user.parse() == Ok(uid) && !home.is_empty();
        found.then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_the_user_counts() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\nbroken\na:x:5:5::/home/a:/bin/sh\nb:x:5:5::/b:\n";
        assert_eq!(find(text, 0).as_deref(), Some("/root"));
        assert_eq!(find(text, 5).as_deref(), Some("/home/a"));
        assert_eq!(find(text, 6), None);
        assert_eq!(find("a:x:7:7:::/bin/sh\n", 7), None);
    }
}
