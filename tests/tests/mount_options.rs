//! Every option of mounts that is not the file systems' own, by what `/proc/self/mountinfo` shows in
//! the container (proc(5)): the mount's options, its propagation, and its file system's options.

use std::collections::HashMap;
use std::process::Command;

use runhcs_tests::config::in_user_namespace;
use runhcs_tests::{Bundle, Harness, Isolation, in_both};
use serde_json::json;

/// What a source that is bound has, in the order in which mountinfo shows it.
const OF_SOURCE: &str = "ro,nosuid,nodev,noexec,noatime,nosymfollow";

/// What mountinfo shows of a mount.
#[derive(Debug)]
struct Shown {
    options: Vec<String>,
    propagation: Vec<String>,
    file_system: Vec<String>,
}

/// The mounts of a container, by their places.
fn shown(mountinfo: &str) -> HashMap<String, Shown> {
    let words = |text: &str| text.split([' ', ',']).map(str::to_owned).collect();
    let line = |line: &str| {
        let (mount, file_system) = line.split_once(" - ").unwrap();
        let fields: Vec<&str> = mount.splitn(7, ' ').collect();
        let shown = Shown {
            options: words(fields[5]),
            propagation: words(fields.get(6).unwrap_or(&"")),
            file_system: words(file_system.rsplit_once(' ').unwrap().1),
        };
        (fields[4].to_owned(), shown)
    };
    mountinfo.lines().map(line).collect()
}

/// Options, and those that mountinfo shows of the mount. What an option takes back comes second.
const ATTRIBUTES: [(&[&str], &[&str]); 27] = [
    (&[], &["rw", "relatime"]),
    (&["defaults"], &["rw", "relatime"]),
    (&["ro"], &["ro", "relatime"]),
    (&["ro", "rw"], &["rw", "relatime"]),
    (&["nosuid"], &["rw", "nosuid", "relatime"]),
    (&["nosuid", "suid"], &["rw", "relatime"]),
    (&["nodev"], &["rw", "nodev", "relatime"]),
    (&["nodev", "dev"], &["rw", "relatime"]),
    (&["noexec"], &["rw", "noexec", "relatime"]),
    (&["noexec", "exec"], &["rw", "relatime"]),
    (&["noatime"], &["rw", "noatime"]),
    (&["noatime", "atime"], &["rw", "relatime"]),
    (&["noatime", "relatime"], &["rw", "relatime"]),
    (&["noatime", "norelatime"], &["rw", "relatime"]),
    (&["strictatime"], &["rw"]),
    (&["strictatime", "nostrictatime"], &["rw", "relatime"]),
    (&["nodiratime"], &["rw", "nodiratime", "relatime"]),
    (&["nodiratime", "diratime"], &["rw", "relatime"]),
    (&["nosymfollow"], &["rw", "relatime", "nosymfollow"]),
    (&["nosymfollow", "symfollow"], &["rw", "relatime"]),
    // They change nothing.
    (&["loud"], &["rw", "relatime"]),
    (&["silent"], &["rw", "relatime"]),
    (&["iversion", "noiversion"], &["rw", "relatime"]),
    // Comments for other programs.
    (&["_netdev", "auto", "noauto", "group", "nofail", "nouser", "owner"], &["rw", "relatime"]),
    (&["user", "users", "copy", "nocopy", "x-some", "X-thing=y"], &["rw", "relatime"]),
    (&["ro", "nosuid", "nodev", "noexec"], &["ro", "nosuid", "nodev", "noexec", "relatime"]),
    (&["noatime", "nodiratime", "nosymfollow"], &["rw", "noatime", "nodiratime", "nosymfollow"]),
];

in_both!(attributes_are_set_and_taken_back, |h: &Harness| {
    let volume = h.path("volume");
    std::fs::create_dir(&volume).unwrap();
    let bundle = Bundle::new(h, "box", &["cat", "/proc/self/mountinfo"]).edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        for (index, (options, _)) in ATTRIBUTES.iter().enumerate() {
            mounts.push(json!({
                "destination": format!("/tmpfs{index}"), "type": "tmpfs", "source": "none",
                "options": options
            }));
            let bind = [&["bind"], *options].concat();
            mounts.push(json!({
                "destination": format!("/bind{index}"), "source": volume, "options": bind
            }));
            // A second time, to the mount that is there.
            let place = format!("/again{index}");
            mounts.push(json!({ "destination": place, "type": "tmpfs", "source": "none" }));
            let again = [&["remount"], *options].concat();
            mounts.push(json!({ "destination": place, "source": "none", "options": again }));
        }
    });
    let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
    let shown = shown(&printed);
    let mut wrong = Vec::new();
    for (index, (options, expected)) in ATTRIBUTES.iter().enumerate() {
        for kind in ["tmpfs", "bind", "again"] {
            let found = &shown[&format!("/{kind}{index}")];
            let mut sorted =
                [found.options.clone(), expected.iter().map(|o| (*o).into()).collect()];
            sorted.iter_mut().for_each(|list| list.sort());
            if sorted[0] != sorted[1] {
                wrong.push(format!("{kind} {options:?}: {:?}, not {expected:?}", found.options));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
});

in_both!(a_file_system_has_its_options, |h: &Harness| {
    let rows: [(&[&str], &[&str], &[&str]); 7] = [
        (&["sync"], &["sync"], &[]),
        (&["sync", "async"], &[], &["sync"]),
        (&["dirsync"], &["dirsync"], &[]),
        (&["lazytime"], &["lazytime"], &[]),
        (&["lazytime", "nolazytime"], &[], &["lazytime"]),
        (&["ro"], &[], &[]),
        (&["size=64k", "mode=750", "nr_inodes=17"], &["size=64k", "mode=750", "nr_inodes=17"], &[]),
    ];
    let bundle = Bundle::new(h, "box", &["cat", "/proc/self/mountinfo"]).edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        for (index, (options, ..)) in rows.iter().enumerate() {
            mounts.push(json!({
                "destination": format!("/new{index}"), "type": "tmpfs", "source": "none",
                "options": options
            }));
        }
    });
    let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
    let shown = shown(&printed);
    for (index, (options, there, not)) in rows.iter().enumerate() {
        let found = &shown[&format!("/new{index}")].file_system;
        assert!(there.iter().all(|o| found.iter().any(|f| f == o)), "{options:?}: {found:?}");
        assert!(!not.iter().any(|o| found.iter().any(|f| f == o)), "{options:?}: {found:?}");
    }
});

in_both!(propagation_is_as_asked, |h: &Harness| {
    let rows: [(&[&str], &str); 8] = [
        (&["shared"], "shared:"),
        (&["rshared"], "shared:"),
        (&["shared", "slave"], "master:"),
        (&["rshared", "rslave"], "master:"),
        (&["shared", "private"], ""),
        (&["rshared", "rprivate"], ""),
        (&["unbindable"], "unbindable"),
        (&["runbindable"], "unbindable"),
    ];
    let bundle = Bundle::new(h, "box", &["cat", "/proc/self/mountinfo"]).edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        for (index, (options, _)) in rows.iter().enumerate() {
            mounts.push(json!({
                "destination": format!("/new{index}"), "type": "tmpfs", "source": "none",
                "options": options
            }));
        }
    });
    let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
    let shown = shown(&printed);
    for (index, (options, expected)) in rows.iter().enumerate() {
        let found = shown[&format!("/new{index}")].propagation.join(" ");
        let matches = match *expected {
            // A slave of nobody's: what it was shared with ended with the option.
            "master:" => !found.contains("shared:"),
            "" => found.is_empty(),
            kind => found.contains(kind),
        };
        assert!(matches, "{options:?}: {found:?}");
    }
});

const RECURSIVE: [(&str, &str); 9] = [
    ("rro", "ro"),
    ("rnosuid", "nosuid"),
    ("rnodev", "nodev"),
    ("rnoexec", "noexec"),
    ("rnoatime", "noatime"),
    ("rnodiratime", "nodiratime"),
    ("rnosymfollow", "nosymfollow"),
    ("rrelatime", "relatime"),
    ("rstrictatime", ""),
];

/// Options that take back what the mount below has.
const TAKEN_BACK: [(&str, &str); 9] = [
    ("rrw", "ro"),
    ("rsuid", "nosuid"),
    ("rdev", "nodev"),
    ("rexec", "noexec"),
    ("ratime", "noatime"),
    ("rnorelatime", "noatime"),
    ("rnostrictatime", "noatime"),
    ("rdiratime", "nodiratime"),
    ("rsymfollow", "nosymfollow"),
];

#[test]
fn recursive_attributes_reach_what_is_below() {
    Harness::run(Isolation::Process, "recursive", |h| {
        let (free, bound) = (h.path("free"), h.path("bound"));
        let below = |volume: &std::path::Path, options: &str| {
            std::fs::create_dir_all(volume.join("below")).unwrap();
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", options, "below"]).arg(volume.join("below"));
            assert!(mount.status().unwrap().success());
        };
        below(&free, "rw");
        below(&bound, "ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow");
        let bundle = Bundle::new(h, "box", &["cat", "/proc/self/mountinfo"]).edit(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            for (source, (option, _)) in RECURSIVE
                .iter()
                .map(|row| (&free, row))
                .chain(TAKEN_BACK.iter().map(|row| (&bound, row)))
            {
                mounts.push(json!({
                    "destination": format!("/{option}"), "source": source,
                    "options": ["rbind", option]
                }));
            }
        });
        let outcome = h.new_container(&["run"], &bundle, "box");
        for volume in [&free, &bound] {
            let umount = Command::new("umount").arg(volume.join("below")).status();
            assert!(umount.unwrap().success());
        }
        let shown = shown(&outcome.ok().stdout);
        for (option, expected) in RECURSIVE {
            for place in [format!("/{option}"), format!("/{option}/below")] {
                let found = &shown[&place].options;
                if expected.is_empty() {
                    let timed = ["noatime", "relatime"];
                    assert!(
                        !found.iter().any(|f| timed.contains(&f.as_str())),
                        "{place}: {found:?}"
                    );
                } else {
                    assert!(found.iter().any(|f| f == expected), "{place}: {found:?}");
                }
            }
        }
        for (option, gone) in TAKEN_BACK {
            let found = &shown[&format!("/{option}/below")].options;
            assert!(!found.iter().any(|f| f == gone), "{option}: {found:?}");
            // Only that.
            let left = TAKEN_BACK.iter().filter(|(_, other)| *other != gone);
            for (_, other) in left {
                assert!(found.iter().any(|f| f == other), "{option}: {found:?} without {other}");
            }
        }
    });
}

// As with runc: what is given any attribute has those that are given, as far as that may be.
#[test]
fn a_bind_mount_with_attributes_has_not_its_sources() {
    Harness::run(Isolation::Process, "sources", |h| {
        let volume = h.path("volume");
        std::fs::create_dir(&volume).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", OF_SOURCE, "volume"])
            .arg(&volume)
            .status();
        assert!(mount.unwrap().success());
        let bound = |name: &str, user_namespace: bool, options: &[&str]| {
            let bundle = Bundle::new(h, name, &["cat", "/proc/self/mountinfo"]).edit(|config| {
                let options = [&["rbind"], options].concat();
                config["mounts"].as_array_mut().unwrap().push(json!({
                    "destination": "/bound", "source": volume, "options": options
                }));
                if user_namespace {
                    in_user_namespace(config, 0, 65_536);
                }
            });
            let outcome = h.new_container(&["run"], &bundle, name);
            std::fs::remove_dir_all(bundle.path()).unwrap();
            outcome
        };
        let rows: [(&[&str], &str, &str); 5] = [
            (&[], OF_SOURCE, OF_SOURCE),
            (&["nosuid"], "rw,nosuid,noatime", "ro,nosuid,nodev,noexec,noatime"),
            (&["ro"], "ro,noatime", "ro,nosuid,nodev,noexec,noatime"),
            (&["ro", "nosymfollow"], "ro,noatime,nosymfollow", OF_SOURCE),
            (&["rnoexec", "nodev"], "rw,nodev,noexec,noatime", "ro,nosuid,nodev,noexec,noatime"),
        ];
        let mut outcomes = Vec::new();
        for (index, (options, plain, locked)) in rows.iter().enumerate() {
            for (kind, user_namespace, expected) in
                [("plain", false, plain), ("locked", true, locked)]
            {
                let name = format!("{kind}{index}");
                outcomes.push((bound(&name, user_namespace, options), *expected, options));
            }
        }
        let taken = ["rw", "suid", "dev", "exec"].map(|option| bound(option, true, &[option]));
        assert!(Command::new("umount").arg(&volume).status().unwrap().success());
        for (outcome, expected, options) in outcomes {
            let found = shown(&outcome.ok().stdout)["/bound"].options.join(",");
            assert_eq!(found, expected, "{options:?}");
        }
        for outcome in taken {
            outcome.refused("set the mount options of /bound: Operation not permitted");
        }
    });
}
