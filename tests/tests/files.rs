//! Files of the root and of volumes: they are the host's, and behave as they do there.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use runhcs_tests::{Bundle, Harness, binary, in_both};
use serde_json::json;

in_both!(files_are_the_hosts, |h: &Harness| {
    let volume = h.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("greeting"), "from the host\n").unwrap();
    let file = h.path("file");
    std::fs::write(&file, "a file\n").unwrap();
    let script = "set -e
        cat /vol/greeting /one-file
        if touch /ro/x; then exit 9; fi
        echo guest > /vol/new; chown 12:34 /vol/new; chmod 4751 /vol/new; ln /vol/new /vol/link
        ln -s new /vol/symlink; mkfifo /vol/fifo
        mkdir /vol/dir; mv /vol/dir /vol/renamed
        truncate -s 5G /vol/sparse; echo end | dd of=/vol/sparse bs=1M seek=5119 conv=notrunc 2>/dev/null
        echo appended >> /one-file
        echo whole > /in-the-root";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] =
                json!(["CAP_CHOWN", "CAP_FOWNER", "CAP_FSETID"]);
        }
        let mounts = config["mounts"].as_array_mut().unwrap();
        for (source, destination, options) in [
            (&volume, "/vol", json!(["rbind"])),
            (&volume, "/ro", json!(["rbind", "ro"])),
            (&file, "/one-file", json!(["bind"])),
        ] {
            mounts.push(json!({
                "source": source, "destination": destination, "type": "bind", "options": options
            }));
        }
    });
    let run = h.new_container(&["run"], &bundle, "box");
    assert_eq!((run.code, run.stdout.as_str()), (0, "from the host\na file\n"), "{run:?}");
    assert!(run.stderr.contains("Read-only file system"), "{run:?}");
    let new = std::fs::metadata(volume.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid(), new.nlink()), (12, 34, 2));
    assert_eq!(new.permissions().mode() & 0o7777, 0o4751);
    assert_eq!(std::fs::read_link(volume.join("symlink")).unwrap().to_str(), Some("new"));
    let renamed = std::fs::metadata(volume.join("renamed")).unwrap();
    assert!(renamed.is_dir() && !volume.join("dir").exists());
    assert!(!volume.join("x").exists());
    let sparse = std::fs::metadata(volume.join("sparse")).unwrap();
    assert_eq!(sparse.len(), 5 << 30);
    // In blocks of 512 bytes.
    assert!(sparse.blocks() < 1 << 14, "{} blocks", sparse.blocks());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a file\nappended\n");
    let root = bundle.path().join("rootfs");
    assert_eq!(std::fs::read_to_string(root.join("in-the-root")).unwrap(), "whole\n");
});

in_both!(an_unlinked_file_lives_while_it_is_open, |h: &Harness| {
    let script = "exec 3<> /file; rm /file; echo still here >&3; test ! -e /file
        exec 4< /proc/self/fd/3; cat <&4";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]);
    let run = h.new_container(&["run"], &bundle, "box");
    assert_eq!((run.code, run.stdout.as_str()), (0, "still here\n"), "{run:?}");
});

in_both!(a_volume_that_does_not_exist_is_named, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["true"]).edit(|config| {
        let mount = json!({
            "source": "/no/such/volume", "destination": "/vol", "type": "bind", "options": ["rbind"]
        });
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    h.new_container(&["create"], &bundle, "box").refused("/no/such/volume");
});

in_both!(a_long_random_exercise_leaves_files_as_they_should_be, |h: &Harness| {
    let volume = h.path("volume");
    std::fs::create_dir(&volume).unwrap();
    let script = "for seed in 1 2 3; do
            file-probe exercise /vol $seed 150 && file-probe exercise /tmp $seed 150 || exit
        done";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).with_program(&binary("file-probe"));
    let bundle = bundle.bind(&volume, "/vol", &["rbind"]).edit(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] =
                json!(["CAP_CHOWN", "CAP_FOWNER", "CAP_FSETID", "CAP_DAC_OVERRIDE"]);
        }
    });
    let run = h.new_container(&["run"], &bundle, "box").ok();
    assert_eq!(run.stdout, "150 steps\n".repeat(6));
    assert_eq!(std::fs::read_dir(&volume).unwrap().count(), 0);
});
