//! `mounts` and `linux.rootfsPropagation`, from the command line: who owns what, what can be
//! written, and what appears where.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use runhcs_tests::{Bundle, Harness, Isolation, in_both};
use serde_json::{Value, json};

fn add(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

fn ids(container: u32, host: u32, size: u32) -> Value {
    json!([{ "containerID": container, "hostID": host, "size": size }])
}

/// A directory with a file that belongs to somebody.
fn volume(h: &Harness, name: &str, owner: u32) -> std::path::PathBuf {
    let path = h.path(name);
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("old"), "x").unwrap();
    for path in [path.clone(), path.join("old")] {
        chown(path, Some(owner), Some(owner)).unwrap();
    }
    path
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = std::fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

in_both!(an_id_mapped_mount_shows_and_makes_other_owners, |h: &Harness| {
    let volume = volume(h, "volume", 1000);
    let script = "stat -c %u:%g /data/old; touch /data/new; stat -c %u:%g /data/new /plain/new";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        add(
            config,
            json!({
                "destination": "/data", "source": volume, "options": ["bind", "idmap"],
                "uidMappings": ids(1000, 0, 10), "gidMappings": ids(1000, 0, 10),
            }),
        );
        add(config, json!({ "destination": "/plain", "source": volume, "options": ["bind"] }));
    });
    let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
    assert_eq!(printed, "0:0\n0:0\n1000:1000\n");
    assert_eq!(owner(&volume.join("new")), (1000, 1000));
});

in_both!(a_user_namespace_lends_its_ids_to_a_mount, |h: &Harness| {
    let volume = volume(h, "volume", 0);
    let script = "stat -c %u:%g /data/old /plain/old; touch /data/new && stat -c %u:%g /data/new";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        config["linux"]["uidMappings"] = ids(0, 100_000, 65536);
        config["linux"]["gidMappings"] = ids(0, 100_000, 65536);
        add(
            config,
            json!({ "destination": "/data", "source": volume, "options": ["rbind", "ridmap"] }),
        );
        add(config, json!({ "destination": "/plain", "source": volume, "options": ["rbind"] }));
    });
    // So that the container's root may enter the bundle, and make mount points.
    std::fs::set_permissions(h.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let mut chowned = std::process::Command::new("chown");
    chowned.args(["-R", "100000:100000"]);
    assert!(chowned.arg(bundle.path().join("rootfs")).status().unwrap().success());
    let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
    assert_eq!(printed, "0:0\n65534:65534\n0:0\n");
    assert_eq!(owner(&volume.join("new")), (0, 0));
});

in_both!(recursive_options_reach_the_mounts_below, |h: &Harness| {
    let volume = volume(h, "volume", 0);
    std::fs::create_dir(volume.join("below")).unwrap();
    let mounted = |verb: &[&str]| {
        let status =
            std::process::Command::new(verb[0]).args(&verb[1..]).arg(volume.join("below")).status();
        assert!(status.unwrap().success());
    };
    mounted(&["mount", "-t", "tmpfs", "below"]);
    // A file can have another one on it.
    let (under, over) = (volume.join("file"), h.path("over"));
    std::fs::write(&under, "hidden\n").unwrap();
    std::fs::write(&over, "shown\n").unwrap();
    let bound = std::process::Command::new("mount").arg("--bind").args([&over, &under]).status();
    assert!(bound.unwrap().success());
    let script = "for d in /rro /ro; do touch $d/x 2>&1; touch $d/below/x 2>&1; \
        echo $d >>$d/file; done 2>&1; cat /ro/file; \
        grep -E ' /(rro|ro)/(below|file) ' /proc/self/mountinfo | cut -d' ' -f5,6; \
        touch /x /inner/x 2>&1";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        config["root"]["readonly"] = json!(true);
        for (destination, options) in [
            ("/rro", json!(["rbind", "rro", "rnoexec", "rnosymfollow"])),
            ("/ro", json!(["rbind", "ro", "noexec"])),
        ] {
            add(
                config,
                json!({ "destination": destination, "source": volume, "options": options }),
            );
        }
    });
    let inner = bundle.path().join("rootfs/inner");
    std::fs::create_dir(&inner).unwrap();
    for name in ["ro", "rro"] {
        std::fs::create_dir(bundle.path().join("rootfs").join(name)).unwrap();
    }
    let mut mount = std::process::Command::new("mount");
    assert!(mount.args(["-t", "tmpfs", "in"]).arg(&inner).status().unwrap().success());
    let outcome = h.new_container(&["run"], &bundle, "box");
    let made = inner.join("x").exists();
    for path in [&inner, &under, &volume.join("below")] {
        assert!(std::process::Command::new("umount").arg(path).status().unwrap().success());
    }
    let printed = outcome.stdout;
    for line in [
        "touch: /rro/x: Read-only file system",
        "touch: /rro/below/x: Read-only file system",
        "touch: /ro/x: Read-only file system",
        "can't create /rro/file: Read-only file system",
        "/rro/below ro,noexec,relatime,nosymfollow",
        "/rro/file ro,noexec,relatime,nosymfollow",
        // Of the options for the mount alone, those below have none.
        "/ro/below rw,relatime",
        "/ro/file rw,relatime",
        "touch: /x: Read-only file system",
    ] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
    assert!(!printed.contains("/ro/below/x") && !printed.contains("/inner/x"), "{printed}");
    assert!(made, "{printed}");
    assert_eq!(std::fs::read_to_string(over).unwrap(), "shown\n/ro\n");
});

in_both!(options_of_a_mount_have_their_effect, |h: &Harness| {
    let script = "cat /copied/file; echo more >> /copied/file; \
        cat /link/x 2>&1; \
        grep -E ' /(copied|link|small) ' /proc/self/mountinfo | cut -d' ' -f5,6; \
        touch /small/x 2>&1";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        let tmpfs = |destination: &str, options: Value| {
            json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
        };
        add(config, tmpfs("/copied", json!(["tmpcopyup", "sync", "lazytime", "noiversion"])));
        add(config, tmpfs("/link", json!(["nosymfollow", "tmpcopyup", "strictatime"])));
        add(config, tmpfs("/small", json!(["size=4k", "mode=1777", "nosuid", "silent"])));
        add(config, tmpfs("/small", json!(["remount", "ro", "nodev"])));
    });
    let rootfs = bundle.path().join("rootfs");
    for name in ["copied", "link"] {
        std::fs::create_dir(rootfs.join(name)).unwrap();
    }
    std::fs::write(rootfs.join("copied/file"), "of the image\n").unwrap();
    std::os::unix::fs::symlink("/copied/file", rootfs.join("link/x")).unwrap();
    let printed = h.new_container(&["run"], &bundle, "box");
    let printed = printed.stdout;
    for line in [
        "of the image",
        "/link/x': Too many levels of symbolic links",
        "/link rw,nosymfollow",
        "/small ro,nosuid,nodev,relatime",
        "/small/x: Read-only file system",
    ] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
    assert_eq!(std::fs::read_to_string(rootfs.join("copied/file")).unwrap(), "of the image\n");
});

in_both!(the_roots_propagation_is_as_asked, |h: &Harness| {
    for (kind, field) in [
        ("private", ""),
        ("rprivate", ""),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
    ] {
        let bundle =
            Bundle::new(h, kind, &["sh", "-c", "cat /proc/self/mountinfo"]).edit(|config| {
                config["linux"]["rootfsPropagation"] = json!(kind);
            });
        let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
        let root = printed.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        let optional = root.split(' ').nth(6).unwrap();
        let expected = if field.is_empty() { "-" } else { field };
        assert!(optional.starts_with(expected), "{kind}: {root}");
        std::fs::remove_dir_all(bundle.path()).unwrap();
    }
});

in_both!(what_is_wrong_with_a_mount_is_named_by_its_field, |h: &Harness| {
    for (mount, message) in [
        (
            json!({ "type": "tmpfs", "options": ["nonsense"] }),
            "mounts[7]: mount tmpfs on /x: option \"nonsense\"",
        ),
        (
            json!({ "type": "tmpfs", "options": ["size=much"] }),
            "mounts[7]: mount tmpfs on /x: option \"size=much\"",
        ),
        (json!({ "type": "nosuchfs" }), "mounts[7]: mount nosuchfs on /x"),
        (json!({ "source": "/tmp", "options": ["bind", "nonsense"] }), "mounts[7].options[1]"),
        (json!({ "source": "/tmp", "options": ["bind", "idmap"] }), "mounts[7].options"),
        (
            json!({ "source": "/tmp", "options": ["bind"], "uidMappings": ids(0, 0, 1) }),
            "mounts[7].gidMappings",
        ),
        (json!({ "options": ["remount", "ro"], "type": "x" }), "mounts[7]: change the mount on /x"),
    ] {
        let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
            let mut mount = mount.clone();
            mount["destination"] = json!("/x");
            add(config, mount);
        });
        // A VM a case would take long; the engine is the same.
        let in_engine = message.contains(": ");
        if h.isolation == Isolation::Process || !in_engine {
            h.new_container(&["create"], &bundle, "box").refused(message);
        }
        std::fs::remove_dir_all(bundle.path()).unwrap();
    }
});
