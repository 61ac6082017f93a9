//! An initramfs: a cpio archive in the "newc" format (Documentation/driver-api/early-userspace/
//! buffer-format.rst), with nothing in it that depends on when or where it was made.

/// What an entry is.
#[derive(Debug)]
pub enum Entry<'a> {
    /// A directory.
    Directory,
    /// Content, and whether it can be executed.
    File(&'a [u8], bool),
    /// A character device's numbers.
    Device(u32, u32),
}

/// An archive in the making.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds an entry; parents must be added before.
    pub fn add(&mut self, path: &str, entry: &Entry<'_>) {
        let (mode, data, device) = match entry {
            Entry::Directory => (0o040755, &[][..], (0, 0)),
            Entry::File(data, true) => (0o100755, *data, (0, 0)),
            Entry::File(data, false) => (0o100644, *data, (0, 0)),
            Entry::Device(major, minor) => (0o020600, &[][..], (*major, *minor)),
        };
        self.entries += 1;
        self.header(path, self.entries, mode, data.len() as u32, device);
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.header("TRAILER!!!", 0, 0, 0, (0, 0));
        self.bytes
    }

    fn header(&mut self, path: &str, inode: u32, mode: u32, size: u32, device: (u32, u32)) {
        let links = 1;
        let fields =
            [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, path.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_tools_can_read_it() {
        let mut archive = Archive::default();
        archive.add("dir", &Entry::Directory);
        archive.add("dir/file", &Entry::File(b"hello", true));
        archive.add("dir/empty", &Entry::File(b"", false));
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, bytes).unwrap();
        let output = std::process::Command::new("busybox")
            .args(["cpio", "-i", "-F"])
            .arg(&path)
            .current_dir(directory.path())
            .output()
            .expect("busybox is installed");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(std::fs::read(directory.path().join("dir/file")).unwrap(), b"hello");
    }
}
