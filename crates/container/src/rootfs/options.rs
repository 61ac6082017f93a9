//! The options of one mount, parsed once (mount(8), runtime specification "Linux mount options").

use rustix::mount::MountPropagationFlags;

/// Attributes of mount_setattr(2).
pub(crate) mod attr {
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    /// The three access-time modes share these bits; a change must clear all of them first.
    pub const ATIME_MASK: u64 = 0x70;
    pub const RELATIME: u64 = 0x0;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// Attributes to set and to clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub set: u64,
    pub clear: u64,
}

impl Attributes {
    fn apply(&mut self, set: u64, clear: u64) {
        self.set = (self.set & !clear) | set;
        self.clear = (self.clear & !set) | clear;
        if set & attr::ATIME_MASK != 0 || clear & attr::ATIME_MASK != 0 {
            self.clear |= attr::ATIME_MASK;
        }
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Whether and how a mount shows another place's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bind {
    /// Without the mounts below it.
    Shallow,
    /// With them.
    Recursive,
}

/// A mount's options.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MountOptions {
    pub bind: Option<Bind>,
    /// For the mount itself.
    pub attributes: Attributes,
    /// For it and all mounts below it.
    pub recursive: Attributes,
    pub propagation: Vec<MountPropagationFlags>,
    /// Copy what the image has at the mount point into the new tmpfs.
    pub copy_up: bool,
    /// For the file system: `key` or `key=value`.
    pub data: Vec<String>,
}

impl MountOptions {
    /// Parses the list of a mount; whatever is no option of mounts is one for the file system.
    pub(crate) fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Self {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option);
        }
        parsed
    }

    fn add(&mut self, option: &str) {
        use MountPropagationFlags as P;
        if let Some((set, clear)) = attribute(option) {
            return self.attributes.apply(set, clear);
        }
        if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            return self.recursive.apply(set, clear);
        }
        match option {
            "bind" => self.bind = self.bind.or(Some(Bind::Shallow)),
            "rbind" => self.bind = Some(Bind::Recursive),
            "private" => self.propagation.push(P::PRIVATE),
            "rprivate" => self.propagation.push(P::PRIVATE | P::REC),
            "shared" => self.propagation.push(P::SHARED),
            "rshared" => self.propagation.push(P::SHARED | P::REC),
            "slave" => self.propagation.push(P::DOWNSTREAM),
            "rslave" => self.propagation.push(P::DOWNSTREAM | P::REC),
            "unbindable" => self.propagation.push(P::UNBINDABLE),
            "runbindable" => self.propagation.push(P::UNBINDABLE | P::REC),
            "tmpcopyup" => self.copy_up = true,
            "defaults" | "" => {}
            data => self.data.push(data.to_owned()),
        }
    }
}

/// What an option sets and clears, if it is an attribute.
fn attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (attr::RDONLY, 0),
        "rw" => (0, attr::RDONLY),
        "nosuid" => (attr::NOSUID, 0),
        "suid" => (0, attr::NOSUID),
        "nodev" => (attr::NODEV, 0),
        "dev" => (0, attr::NODEV),
        "noexec" => (attr::NOEXEC, 0),
        "exec" => (0, attr::NOEXEC),
        "noatime" => (attr::NOATIME, 0),
        "atime" | "norelatime" | "nostrictatime" => (attr::RELATIME, attr::ATIME_MASK),
        "relatime" => (attr::RELATIME, attr::ATIME_MASK),
        "strictatime" => (attr::STRICTATIME, 0),
        "nodiratime" => (attr::NODIRATIME, 0),
        "diratime" => (0, attr::NODIRATIME),
        "nosymfollow" => (attr::NOSYMFOLLOW, 0),
        "symfollow" => (0, attr::NOSYMFOLLOW),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_options_win() {
        let options = MountOptions::parse(["ro", "nosuid", "rw"]);
        assert_eq!(options.attributes.set, attr::NOSUID);
        assert_eq!(options.attributes.clear, attr::RDONLY);
    }

    #[test]
    fn recursive_attributes_are_kept_apart() {
        let options = MountOptions::parse(["rbind", "rro", "noexec"]);
        assert_eq!(options.bind, Some(Bind::Recursive));
        assert_eq!(options.recursive.set, attr::RDONLY);
        assert_eq!(options.attributes.set, attr::NOEXEC);
    }

    #[test]
    fn access_time_modes_clear_each_other() {
        let options = MountOptions::parse(["strictatime"]);
        assert_eq!(
            options.attributes,
            Attributes { set: attr::STRICTATIME, clear: attr::ATIME_MASK }
        );
    }

    #[test]
    fn the_rest_is_for_the_file_system() {
        let options = MountOptions::parse(["mode=755", "newinstance", "rshared", "defaults"]);
        assert_eq!(options.data, ["mode=755", "newinstance"]);
        assert_eq!(options.propagation.len(), 1);
    }
}
