//! Disks for Linux containers: `create-scratch` and `prepare-disk`.

use std::path::Path;

use hcs_sim::guest::EXT4;
use runhcs_tests::wine::{Wine, windows_path};

/// Whether a disk's file has what the stand-in's guest makes.
fn has_ext4(file: &Path) -> bool {
    let content = std::fs::read(file).unwrap();
    let at = usize::try_from(EXT4.0).unwrap();
    content.get(at..at + 2) == Some(&EXT4.1)
}

/// The size of a disk that the stand-in made, in bytes.
fn size(file: &Path) -> u64 {
    let content = std::fs::read(file).unwrap();
    assert_eq!(&content[..8], b"vhdxfile");
    u64::from_le_bytes(content[8..16].try_into().unwrap())
}

fn machines_made(wine: &Wine) -> Vec<String> {
    let calls = wine.calls().into_iter();
    calls.filter(|call| call.function == "HcsCreateComputeSystem").map(|call| call.about).collect()
}

#[test]
fn a_scratch_disk_is_made_with_a_vm() {
    Wine::run("create-scratch", |wine| {
        let file = wine.path("new.vhdx");
        let path = windows_path(&file);
        wine.runhcs(&["--owner", "me", "create-scratch", "--destpath", &path]).ok();
        assert!(has_ext4(&file));
        assert_eq!(size(&file), 20 << 30);
        let made = machines_made(wine);
        assert_eq!(made.len(), 1, "{made:?}");
        let (_, document) = made[0].split_once(' ').unwrap();
        let document: serde_json::Value = serde_json::from_str(document).unwrap();
        assert_eq!(document["Owner"], "me");
        let memory = &document["VirtualMachine"]["ComputeTopology"]["Memory"];
        assert_ne!(memory["AllowOvercommit"], true);
        // What is there already is nobody's to overwrite.
        std::fs::write(&file, "precious").unwrap();
        wine.runhcs(&["create-scratch", "--destpath", &path]).refused("new.vhdx");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        wine.runhcs(&["create-scratch", "--destpath", "Z:\\none\\new.vhdx"]).refused("new.vhdx");
        wine.runhcs(&["create-scratch"]).refused("--destpath");
    });
}

#[test]
fn the_size_and_the_memory_can_be_chosen() {
    Wine::run("create-scratch size", |wine| {
        let file = wine.path("small.vhdx");
        let path = windows_path(&file);
        let options = ["--sizeGB", "5", "--use-virtual-memory"];
        let line: Vec<&str> =
            ["create-scratch", "--destpath", &path].into_iter().chain(options).collect();
        wine.runhcs(&line).ok();
        assert_eq!(size(&file), 5 << 30);
        assert!(has_ext4(&file));
        let made = machines_made(wine);
        assert!(made[0].contains("\"AllowOvercommit\":true"), "{made:?}");
        assert!(made[0].contains("VirtualPMem"), "{made:?}");
        let line = ["create-scratch", "--destpath", "x", "--sizeGB", "65537"];
        wine.runhcs(&line).refused("65537");
    });
}

#[test]
fn a_kept_disk_is_copied() {
    Wine::run("create-scratch cache", |wine| {
        let (kept, paths) = (wine.path("kept.vhdx"), ["a.vhdx", "b.vhdx", "c.vhdx"]);
        let kept_path = windows_path(&kept);
        let create = |name: &str, more: &[&str]| {
            let path = windows_path(&wine.path(name));
            let mut line = vec!["create-scratch", "--destpath", &path, "--cache-path", &kept_path];
            line.extend(more);
            wine.runhcs(&line)
        };
        create(paths[0], &[]).ok();
        assert!(has_ext4(&kept));
        assert_eq!(machines_made(wine).len(), 1);
        create(paths[1], &["--sizeGB", "20"]).ok();
        assert_eq!(machines_made(wine).len(), 0);
        assert_eq!(std::fs::read(wine.path(paths[1])).unwrap(), std::fs::read(&kept).unwrap());
        create(paths[1], &[]).refused("exists already");
        // One of another size is neither copied nor kept.
        create(paths[2], &["--sizeGB", "3"]).ok();
        assert_eq!((size(&wine.path(paths[2])), size(&kept)), (3 << 30, 20 << 30));
        assert_eq!(machines_made(wine).len(), 1);
        let files = std::fs::read_dir(wine.path("")).unwrap();
        let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| name.contains("kept.vhdx")).count(), 1);
    });
}

#[test]
fn of_a_disk_that_cannot_be_made_nothing_is_left() {
    Wine::run("create-scratch fails", |wine| {
        let file = wine.path("new.vhdx");
        let path = windows_path(&file);
        let line = ["create-scratch", "--destpath", &path];
        wine.runhcs(&line).ok();
        let calls = wine.calls();
        let mut failed = 0;
        for (number, call) in calls.iter().enumerate() {
            let same =
                calls[..number].iter().filter(|other| other.function == call.function).count();
            if call.function == "HcsClose" {
                continue;
            }
            std::fs::remove_file(&file).ok();
            let fault = format!("{}#{}:fail:0x8007045D", call.function, same + 1);
            wine.sim.faults(&[&fault]).unwrap();
            let outcome = wine.runhcs(&line);
            wine.sim.faults(&[]).unwrap();
            if outcome.code == 0 {
                // The service tells of the end all the same.
                let asked = ["HcsGetProcessProperties", "HcsGetComputeSystemProperties"];
                assert!(asked.contains(&call.function.as_str()), "{fault}: {outcome:?}");
            } else {
                failed += 1;
                assert!(outcome.stderr.contains("0x8007045D"), "{fault}: {outcome:?}");
                assert!(!file.exists(), "{fault}: {outcome:?}");
            }
            let left = wine.left();
            assert!(left.is_empty(), "{fault} left:\n{}", left.join("\n"));
        }
        assert!(failed >= 8, "{calls:?}");
    });
}

#[test]
fn a_disk_is_prepared() {
    Wine::run("prepare-disk", |wine| {
        let file = wine.path("old.vhdx");
        std::fs::write(&file, "a disk").unwrap();
        wine.runhcs(&["prepare-disk", "--destpath", &windows_path(&file)]).ok();
        assert!(has_ext4(&file));
        wine.calls();
        let disk = r"\\.\PHYSICALDRIVE7";
        wine.runhcs(&["prepare-disk", "--destpath", disk]).ok();
        let calls = wine.calls();
        let attached = calls.iter().any(|call| {
            call.function == "HcsModifyComputeSystem" && call.about.contains("\"PassThru\"")
        });
        let made = calls.iter().any(|call| {
            call.function == "HcsCreateProcess" && call.about.contains("\"mkfs.ext4\"")
        });
        assert!(attached && made, "{calls:?}");
        let missing = windows_path(&wine.path("missing.vhdx"));
        wine.runhcs(&["prepare-disk", "--destpath", &missing]).refused("missing.vhdx");
        assert!(!wine.path("missing.vhdx").exists());
    });
}
