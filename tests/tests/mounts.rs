//! `mounts` and `linux.rootfsPropagation`, from the command line: who owns what, what can be
//! written, and what appears where.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use runhcs_tests::config::{id_mappings, in_user_namespace};
use runhcs_tests::{Bundle, Harness, Isolation, in_both};
use serde_json::{Value, json};

fn add(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
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
                "uidMappings": id_mappings(1000, 0, 10), "gidMappings": id_mappings(1000, 0, 10),
            }),
        );
        add(config, json!({ "destination": "/plain", "source": volume, "options": ["bind"] }));
    });
    let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
    assert_eq!(printed, "0:0\n0:0\n1000:1000\n");
    assert_eq!(owner(&volume.join("new")), (1000, 1000));
});

#[test]
fn an_id_mapped_source_may_be_what_was_mounted_in_the_root() {
    Harness::run(Isolation::Process, "mapped-in-root", |h| {
        let volume = volume(h, "volume", 1000);
        let script = "stat -c %u:%g /first/old /second/old";
        let bundle = Bundle::new(h, "box", &["sh", "-c", script]);
        let first = bundle.path().join("rootfs/first");
        let bundle = bundle.edit(|config| {
            let mount = json!({ "destination": "/first", "source": volume, "options": ["bind"] });
            add(config, mount);
            add(
                config,
                json!({
                    "destination": "/second", "source": first, "options": ["bind", "idmap"],
                    "uidMappings": id_mappings(1000, 0, 10), "gidMappings": id_mappings(1000, 0, 10),
                }),
            );
        });
        let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
        assert_eq!(printed, "1000:1000\n0:0\n");
    });
}

in_both!(a_user_namespace_lends_its_ids_to_a_mount, |h: &Harness| {
    let volume = volume(h, "volume", 0);
    let script = "stat -c %u:%g /data/old /plain/old; touch /data/new && stat -c %u:%g /data/new";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        in_user_namespace(config, 100_000, 65536);
        add(
            config,
            json!({ "destination": "/data", "source": volume, "options": ["rbind", "ridmap"] }),
        );
        add(config, json!({ "destination": "/plain", "source": volume, "options": ["rbind"] }));
    });
    give_to_user_namespace(h, &bundle);
    let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
    assert_eq!(printed, "0:0\n65534:65534\n0:0\n");
    assert_eq!(owner(&volume.join("new")), (0, 0));
});

in_both!(recursive_options_reach_the_mounts_below, |h: &Harness| {
    let volume = volume(h, "volume", 0);
    std::fs::create_dir(volume.join("below")).unwrap();
    let mounted = |verb: &[&str]| {
        let status = Command::new(verb[0]).args(&verb[1..]).arg(volume.join("below")).status();
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
            json!({ "source": "/tmp", "options": ["bind"], "uidMappings": id_mappings(0, 0, 1) }),
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

/// What a shell says that has a mount namespace in which everything is shared, as systemd has it.
fn among_shared_mounts(h: &Harness, script: &str) -> String {
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--propagation", "shared", "sh", "-euc", script]);
    shell.env("RUNHCS", h.runtime()).current_dir(h.path(""));
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the kernel says of a mount's propagation.
fn optional_field<'a>(mountinfo: &'a str, point: &str) -> &'a str {
    let of = |line: &&str| line.split(' ').nth(4) == Some(point);
    mountinfo.lines().find(of).unwrap().split(' ').nth(6).unwrap()
}

#[test]
fn a_container_leaves_the_hosts_shared_mounts_alone() {
    Harness::run(Isolation::Process, "shared mounts", |h| {
        for kind in ["rshared", "rslave", "rprivate"] {
            let name = format!("bundle-{kind}");
            Bundle::new(h, &name, &["true"]).edit(|config| {
                config["linux"]["rootfsPropagation"] = json!(kind);
            });
            let script = format!(
                "mkdir -p outer; mount -t tmpfs outer outer; mkdir outer/inner
                 mount -t tmpfs inner outer/inner; cat /proc/self/mountinfo >before
                 $RUNHCS run --bundle {name} box >/dev/null
                 cat /proc/self/mountinfo | diff before - && echo the same; umount -R outer"
            );
            assert_eq!(among_shared_mounts(h, &script), "the same\n", "{kind}");
        }
    });
}

#[test]
fn mounts_are_shared_in_the_container_if_they_are_to_be() {
    Harness::run(Isolation::Process, "shared in the container", |h| {
        let volume = volume(h, "volume", 0);
        for user in [false, true] {
            let name = format!("bundle-{user}");
            let bundle = Bundle::new(h, &name, &["cat", "/proc/self/mountinfo"]).edit(|config| {
                if user {
                    in_user_namespace(config, 100_000, 65536);
                }
                for kind in ["shared", "slave", "private"] {
                    let destination = format!("/{kind}");
                    let options = json!(["rbind", format!("r{kind}")]);
                    add(
                        config,
                        json!({ "destination": destination, "source": volume, "options": options }),
                    );
                }
            });
            give_to_user_namespace(h, &bundle);
            let said = among_shared_mounts(h, &format!("$RUNHCS run --bundle {name} box"));
            for (point, field) in
                [("/shared", "shared:"), ("/slave", "master:"), ("/private", "-"), ("/", "master:")]
            {
                assert!(optional_field(&said, point).starts_with(field), "{user} {point}: {said}");
            }
        }
    });
}

/// So that the container's root may enter the bundle, and make mount points.
fn give_to_user_namespace(h: &Harness, bundle: &Bundle) {
    std::fs::set_permissions(h.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let mut chowned = Command::new("chown");
    chowned.args(["-R", "100000:100000"]);
    assert!(chowned.arg(bundle.path().join("rootfs")).status().unwrap().success());
}

in_both!(root_of_a_user_namespace_gets_sources_that_it_can_not_reach, |h: &Harness| {
    let volume = volume(h, "volume", 0);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    for name in ["one", "two"] {
        std::fs::create_dir(volume.join(name)).unwrap();
        std::fs::write(volume.join(name).join("file"), name).unwrap();
    }
    std::fs::set_permissions(&volume, mode).unwrap();
    let script = "cat /one/file /two/file /file; cat /one/../old";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        in_user_namespace(config, 100_000, 65536);
        for name in ["one", "two"] {
            let (source, destination) = (volume.join(name), format!("/{name}"));
            add(
                config,
                json!({ "destination": destination, "source": source, "options": ["rbind"] }),
            );
        }
        let source = volume.join("one/file");
        add(config, json!({ "destination": "/file", "source": source, "options": ["bind"] }));
    });
    give_to_user_namespace(h, &bundle);
    let outcome = h.new_container(&["run"], &bundle, "box");
    assert_eq!((outcome.stdout.as_str(), outcome.code), ("onetwoone", 1), "{outcome:?}");
});

#[test]
fn root_of_a_user_namespace_can_not_uncover_what_the_host_has_covered() {
    Harness::run(Isolation::Process, "covered", |h| {
        let volume = volume(h, "volume", 0);
        std::fs::create_dir(volume.join("below")).unwrap();
        std::fs::write(volume.join("below/secret"), "secret").unwrap();
        let script = "umount /data/below; mount -o remount,bind,rw /data/below
            ls /data/below; touch /data/below/new; true";
        let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
            in_user_namespace(config, 100_000, 65536);
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
            }
            config["process"]["noNewPrivileges"] = json!(false);
            add(config, json!({ "destination": "/data", "source": volume, "options": ["rbind"] }));
        });
        give_to_user_namespace(h, &bundle);
        let said = among_shared_mounts(
            h,
            "mount -t tmpfs -o mode=777,ro below volume/below
             $RUNHCS run --bundle box box 2>&1; umount volume/below",
        );
        assert!(!said.contains("secret"), "{said}");
        for refused in ["umount", "remount", "touch"] {
            assert!(said.contains(refused) || refused == "remount", "{refused}: {said}");
        }
        assert!(said.contains("Read-only file system"), "{said}");
    });
}

in_both!(destinations_may_lead_through_links_to_nothing_and_name_the_root, |h: &Harness| {
    let volume = volume(h, "volume", 0);
    let script = "cat /etc/link /made/here /final/old";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]);
    let root = bundle.path().join("rootfs");
    std::os::unix::fs::symlink("/made/here", root.join("etc/link")).unwrap();
    let bundle = bundle.edit(|config| {
        for (destination, source, options) in [
            (Path::new("/etc/link"), volume.join("old"), ["bind", "ro"]),
            (&root.join("final"), volume.clone(), ["rbind", "ro"]),
        ] {
            add(
                config,
                json!({ "destination": destination, "source": source, "options": options }),
            );
        }
    });
    assert_eq!(h.new_container(&["run"], &bundle, "box").ok().stdout, "xxx");
});

#[test]
fn a_mount_on_the_root_is_the_root() {
    Harness::run(Isolation::Process, "on_the_root", |h| {
        let other = h.path("other");
        let first = Bundle::new(h, "first", &["true"]);
        std::fs::rename(first.path().join("rootfs"), &other).unwrap();
        std::fs::write(other.join("this"), "").unwrap();
        let script = "ls -d /this /proc/self; touch /new 2>/dev/null || echo read-only";
        let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.insert(0, json!({ "destination": "/", "source": other, "options": ["rbind"] }));
            config["root"]["readonly"] = json!(true);
        });
        let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
        assert_eq!(printed, "/proc/self\n/this\nread-only\n");
    });
}
