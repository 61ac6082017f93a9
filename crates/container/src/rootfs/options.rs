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

    /// For a bind mount that is to have these attributes: as with runc, and with a remount by
    /// mount(8), it has none of its source's then but those to keep, and but for how access times
    /// are kept.
    pub(crate) fn alone(self, keep: u64) -> Self {
        let source = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;
        Self { clear: self.clear | (source & !self.set & !keep), ..self }
    }

    /// The same where the source's can't be taken away (mount_namespaces(7), "Restrictions on mount
    /// namespaces"), but for the one that can: nobody's protection is at stake with it.
    pub(crate) fn with_locked(self) -> Self {
        Self { clear: self.clear | (attr::NOSYMFOLLOW & !self.set), ..self }
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

/// Which mounts of a tree have their files' owners mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapped {
    /// The topmost.
    Top,
    /// All.
    All,
}

/// A mount's options.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MountOptions {
    pub bind: Option<Bind>,
    /// Whether a mount that is there already is changed.
    pub remount: bool,
    /// For the mount itself.
    pub attributes: Attributes,
    /// For it and all mounts below it.
    pub recursive: Attributes,
    pub propagation: Vec<MountPropagationFlags>,
    pub id_map: Option<Mapped>,
    /// Copy what the image has at the mount point into the new tmpfs.
    pub copy_up: bool,
    /// For the file system: `key` or `key=value`.
    pub data: Vec<String>,
}

/// The attributes' names, with what they set and clear.
const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", attr::RDONLY, 0),
    ("rw", 0, attr::RDONLY),
    ("nosuid", attr::NOSUID, 0),
    ("suid", 0, attr::NOSUID),
    ("nodev", attr::NODEV, 0),
    ("dev", 0, attr::NODEV),
    ("noexec", attr::NOEXEC, 0),
    ("exec", 0, attr::NOEXEC),
    ("noatime", attr::NOATIME, 0),
    ("atime", attr::RELATIME, attr::ATIME_MASK),
    ("relatime", attr::RELATIME, attr::ATIME_MASK),
    ("norelatime", attr::RELATIME, attr::ATIME_MASK),
    ("strictatime", attr::STRICTATIME, 0),
    ("nostrictatime", attr::RELATIME, attr::ATIME_MASK),
    ("nodiratime", attr::NODIRATIME, 0),
    ("diratime", 0, attr::NODIRATIME),
    ("nosymfollow", attr::NOSYMFOLLOW, 0),
    ("symfollow", 0, attr::NOSYMFOLLOW),
];

const PROPAGATION: [(&str, MountPropagationFlags); 8] = {
    use MountPropagationFlags as P;
    [
        ("private", P::PRIVATE),
        ("rprivate", P::PRIVATE.union(P::REC)),
        ("shared", P::SHARED),
        ("rshared", P::SHARED.union(P::REC)),
        ("slave", P::DOWNSTREAM),
        ("rslave", P::DOWNSTREAM.union(P::REC)),
        ("unbindable", P::UNBINDABLE),
        ("runbindable", P::UNBINDABLE.union(P::REC)),
    ]
};

/// Options of every file system, which fsconfig(2) takes by these names.
const GENERIC: [&str; 7] = ["sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"];

/// Options that change nothing: about what the kernel logs, and about counting changes of files,
/// which file systems decide by themselves (`SB_I_VERSION`).
const IGNORED: [&str; 5] = ["defaults", "silent", "loud", "iversion", "noiversion"];

/// What is no option of a mount but a comment for other programs (fstab(5), mount(8)).
const COMMENTS: [&str; 11] = [
    "_netdev", "auto", "noauto", "group", "nofail", "nouser", "owner", "user", "users", "copy",
    "nocopy",
];

const OTHERS: [&str; 6] = ["bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup"];

/// Every option that is not left to the file systems.
pub(crate) fn known() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().map(|(name, ..)| *name);
    let recursive = ATTRIBUTES.iter().map(|(name, ..)| format!("r{name}"));
    let propagation = PROPAGATION.iter().map(|(name, _)| *name);
    let others = attributes.chain(propagation).chain(GENERIC).chain(IGNORED).chain(OTHERS);
    let mut names: Vec<String> = others.map(str::to_owned).chain(recursive).collect();
    names.sort();
    names
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
        if let Some((set, clear)) = attribute(option) {
            return self.attributes.apply(set, clear);
        }
        if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            return self.recursive.apply(set, clear);
        }
        if let Some((_, flags)) = PROPAGATION.iter().find(|(name, _)| *name == option) {
            return self.propagation.push(*flags);
        }
        match option {
            "bind" => self.bind = self.bind.or(Some(Bind::Shallow)),
            "rbind" => self.bind = Some(Bind::Recursive),
            "remount" => self.remount = true,
            "idmap" => self.id_map = self.id_map.or(Some(Mapped::Top)),
            "ridmap" => self.id_map = Some(Mapped::All),
            "tmpcopyup" => self.copy_up = true,
            "" => {}
            ignored if IGNORED.contains(&ignored) || is_comment(ignored) => {}
            data => self.data.push(data.to_owned()),
        }
    }

    /// Whether an option means something to some file systems only.
    pub(crate) fn is_specific(option: &str) -> bool {
        !Self::parse([option]).data.is_empty() && !GENERIC.contains(&option)
    }
}

fn is_comment(option: &str) -> bool {
    COMMENTS.contains(&option) || option.starts_with("x-") || option.starts_with("X-")
}

/// What an option sets and clears, if it is an attribute.
fn attribute(option: &str) -> Option<(u64, u64)> {
    let found = ATTRIBUTES.iter().find(|(name, ..)| *name == option)?;
    Some((found.1, found.2))
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
    fn a_bind_mount_has_its_own_attributes_alone() {
        let attributes = MountOptions::parse(["bind", "nosuid", "dev", "noatime"]).attributes;
        let alone = attributes.alone(0);
        assert_eq!(alone.set, attr::NOSUID | attr::NOATIME);
        let kinds = attr::RDONLY | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;
        assert_eq!(alone.clear, kinds | attr::ATIME_MASK);
        assert_eq!(attributes.alone(attr::RDONLY).clear, alone.clear & !attr::RDONLY);
        assert_eq!(
            attributes.with_locked().clear,
            attr::NODEV | attr::NOSYMFOLLOW | attr::ATIME_MASK
        );
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
        let options =
            MountOptions::parse(["mode=755", "newinstance", "rshared", "defaults", "sync"]);
        assert_eq!(options.data, ["mode=755", "newinstance", "sync"]);
        assert_eq!(options.propagation.len(), 1);
        assert!(MountOptions::is_specific("mode=755") && !MountOptions::is_specific("sync"));
    }

    #[test]
    fn what_is_known_is_no_option_of_a_file_system() {
        for option in known() {
            let parsed = MountOptions::parse([option.as_str()]);
            assert!(parsed.data.iter().all(|data| GENERIC.contains(&data.as_str())), "{option}");
        }
    }
}
