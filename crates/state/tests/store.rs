//! What the store promises to one process.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use common::{full, id, names, record, root, store};
use runhcs_state::{Error, Record, Store};

#[test]
fn a_claimed_entry_is_whole() {
    let (temp, store) = store();
    let record = record("one");
    let locked = store.claim(&record).unwrap();
    assert_eq!(locked.id(), &id("one"));
    assert_eq!(locked.dir(), root(&temp).join("one"));
    assert_eq!(locked.record().unwrap(), record);
    assert_eq!(names(&root(&temp)), ["one", "~tmp"]);
    assert_eq!(names(locked.dir()), ["record.json"]);
    assert_eq!(names(&root(&temp).join("~tmp")), [] as [String; 0]);
    for (path, mode) in [
        (root(&temp), 0o700),
        (locked.dir().to_owned(), 0o700),
        (locked.dir().join("record.json"), 0o600),
    ] {
        let found = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{}: {found:o}", path.display());
    }
}

#[test]
fn a_taken_id_is_refused_and_nothing_changes() {
    let (temp, store) = store();
    drop(store.claim(&record("one")).unwrap());
    let other = Record { owner: "other".into(), ..record("one") };
    let error = store.claim(&other).unwrap_err();
    assert_eq!(error.to_string(), "container one already exists");
    assert_eq!(store.entry(&id("one")).unwrap().record().unwrap(), record("one"));
    assert_eq!(names(&root(&temp).join("~tmp")), [] as [String; 0]);
}

#[test]
fn the_longest_ids_work_and_are_listed() {
    let (_temp, store) = store();
    let ids = ["a".repeat(1024), format!("{}b", "a".repeat(1023)), "a".repeat(200), "..x".into()];
    for text in &ids {
        drop(store.claim(&record(text)).unwrap());
        assert!(matches!(store.claim(&record(text)), Err(Error::Exists(_))), "{text}");
    }
    let mut listed: Vec<String> = store
        .list()
        .unwrap()
        .into_iter()
        .map(|(name, entry)| {
            assert_eq!(entry.unwrap().0.id().as_str(), name);
            name
        })
        .collect();
    let mut ids = ids.to_vec();
    ids.sort();
    listed.sort();
    assert_eq!(listed, ids);
    for text in &ids {
        store.entry(&id(text)).unwrap().lock().unwrap().remove().unwrap();
    }
    assert_eq!(store.list().unwrap().len(), 0);
}

#[test]
fn a_store_that_was_never_used_is_empty() {
    let (temp, store) = store();
    assert_eq!(store.list().unwrap().len(), 0);
    let error = store.entry(&id("one")).unwrap_err();
    assert_eq!(error.to_string(), "container one does not exist");
    assert!(!root(&temp).exists(), "reading made a directory");
}

#[test]
fn values_are_replaced_whole() {
    let (_temp, store) = store();
    let locked = store.claim(&record("one")).unwrap();
    assert_eq!(locked.get::<Vec<u32>>("init").unwrap(), None);
    for value in [vec![1, 2, 3], vec![], vec![4; 100_000]] {
        locked.put("init", &value).unwrap();
        assert_eq!(locked.get::<Vec<u32>>("init").unwrap(), Some(value));
    }
    assert_eq!(names(locked.dir()), ["init.json", "record.json"]);
}

#[test]
fn values_are_erased_alone() {
    let (_temp, store) = store();
    let locked = store.claim(&record("one")).unwrap();
    locked.put("v", &1).unwrap();
    locked.put("w", &2).unwrap();
    locked.erase("v").unwrap();
    locked.erase("v").unwrap();
    assert_eq!(locked.get::<u32>("v").unwrap(), None);
    assert_eq!(locked.get::<u32>("w").unwrap(), Some(2));
}

#[test]
fn a_value_that_cannot_be_written_leaves_the_old_one() {
    let (_temp, store) = store();
    let locked = store.claim(&record("one")).unwrap();
    locked.put("v", &1).unwrap();
    // A draft can't be written where a directory lies.
    fs::create_dir(locked.dir().join("~v")).unwrap();
    let error = locked.put("v", &2).unwrap_err();
    assert!(full(&error).starts_with("cannot write "), "{}", full(&error));
    assert_eq!(locked.get::<u32>("v").unwrap(), Some(1));
}

#[test]
fn a_value_name_cannot_leave_the_entry() {
    let (_temp, store) = store();
    let locked = store.claim(&record("one")).unwrap();
    for name in ["", "../x", "a/b", "~x", "a.b", "a\0", &"x".repeat(300)] {
        assert!(locked.put(name, &1).is_err(), "{name:?} was written");
        assert!(locked.get::<u32>(name).is_err(), "{name:?} was read");
    }
    assert_eq!(names(locked.dir()), ["record.json"]);
}

#[test]
fn damage_is_named_with_file_and_way_out() {
    let (_temp, store) = store();
    drop(store.claim(&record("one")).unwrap());
    let entry = store.entry(&id("one")).unwrap();
    let file = entry.dir().join("record.json");
    let good = fs::read_to_string(&file).unwrap();
    let newer = good.replace("\"version\":1", "\"version\":2,\"new\":true");
    let other = good.replace("\"id\":\"one\"", "\"id\":\"two\"");
    let unknown = good.replace("\"version\":1", "\"version\":1,\"new\":true");
    let cases: [(&[u8], &str); 7] = [
        (b"", "EOF"),
        (&good.as_bytes()[..20], "EOF"),
        (b"\xff\x00", "expected value"),
        (b"7", "invalid type"),
        (newer.as_bytes(), "it has version 2, this runhcs reads version 1"),
        (other.as_bytes(), "it is the record of container two"),
        (unknown.as_bytes(), "unknown field `new`"),
    ];
    for (text, expected) in cases {
        fs::write(&file, text).unwrap();
        let error = entry.record().unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        let text = full(&error);
        for part in [expected, &file.display().to_string(), "`delete --force one`"] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
    }
    fs::remove_file(&file).unwrap();
    assert!(full(&entry.record().unwrap_err()).contains("the file is missing"));
    symlink("/etc/passwd", &file).unwrap();
    assert!(full(&entry.record().unwrap_err()).contains("it is a symbolic link"));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(full(&entry.record().unwrap_err()).contains("it is not a regular file"));

    // And the way out works.
    entry.lock().unwrap().remove().unwrap();
    drop(store.claim(&record("one")).unwrap());
}

#[test]
fn the_list_reports_broken_entries_and_goes_on() {
    let (temp, store) = store();
    let long = "l".repeat(500);
    for text in ["good", "broken", &long] {
        drop(store.claim(&record(text)).unwrap());
    }
    fs::write(root(&temp).join("broken/record.json"), "{").unwrap();
    let long_dir = store.entry(&id(&long)).unwrap().dir().to_owned();
    fs::write(long_dir.join("record.json"), "{").unwrap();
    fs::write(root(&temp).join("file"), "").unwrap();
    fs::create_dir(root(&temp).join("not an id")).unwrap();
    symlink("good", root(&temp).join("link")).unwrap();

    let list = store.list().unwrap();
    let errors: Vec<String> =
        list.iter().filter_map(|(_, entry)| entry.as_ref().err().map(|e| full(e))).collect();
    let names: Vec<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
    let long_name = long_dir.file_name().unwrap().to_str().unwrap();
    assert_eq!(names, ["broken", "file", "good", "link", long_name, "not an id"], "{errors:#?}");
    let expected = ["is damaged", "not a directory", "not a directory", "its record", "no record"];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}

#[test]
fn a_removed_entry_is_gone_with_all_in_it() {
    let (temp, store) = store();
    let outside = temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "").unwrap();
    let locked = store.claim(&record("one")).unwrap();
    locked.put("init", &1).unwrap();
    fs::create_dir_all(locked.dir().join("vm/deep/deeper")).unwrap();
    fs::write(locked.dir().join("vm/deep/file"), "").unwrap();
    symlink(&outside, locked.dir().join("vm/link")).unwrap();
    symlink("..", locked.dir().join("up")).unwrap();
    let other = store.entry(&id("one")).unwrap();
    locked.remove().unwrap();
    drop(locked);

    assert_eq!(names(&root(&temp)), ["~tmp"]);
    assert_eq!(names(&root(&temp).join("~tmp")), [] as [String; 0]);
    assert_eq!(names(&outside), ["precious"], "a symbolic link was followed");
    assert!(matches!(store.entry(&id("one")), Err(Error::NotFound(_))));
    // One who opened it before sees that it is gone, also when the id is taken again.
    drop(store.claim(&record("one")).unwrap());
    assert!(matches!(other.record(), Err(Error::NotFound(_))));
    assert!(matches!(other.get::<u32>("init"), Err(Error::NotFound(_))));
    assert!(matches!(other.lock(), Err(Error::NotFound(_))));
}

#[test]
fn removing_what_somebody_else_deleted_succeeds() {
    let (_temp, store) = store();
    let locked = store.claim(&record("one")).unwrap();
    fs::remove_dir_all(locked.dir()).unwrap();
    assert!(matches!(locked.put("init", &1), Err(Error::NotFound(_))));
    locked.remove().unwrap();
    drop(locked);

    // Nor is a newer entry of the same id taken for it.
    let locked = store.claim(&record("one")).unwrap();
    fs::remove_dir_all(locked.dir()).unwrap();
    drop(store.claim(&record("one")).unwrap());
    locked.remove().unwrap();
    drop(locked);
    assert_eq!(store.entry(&id("one")).unwrap().record().unwrap(), record("one"));
}

#[test]
fn an_entry_that_cannot_be_removed_stays_usable() {
    let (temp, store) = store();
    let locked = store.claim(&record("one")).unwrap();
    // Deeper than removal goes.
    let deep = "d/".repeat(70);
    fs::create_dir_all(locked.dir().join(&deep)).unwrap();
    let error = locked.remove().unwrap_err();
    drop(locked);
    assert!(full(&error).starts_with("cannot remove "), "{}", full(&error));
    let entry = store.entry(&id("one")).unwrap();
    assert_eq!(entry.record().unwrap(), record("one"));
    fs::remove_dir_all(entry.dir().join("d")).unwrap();
    entry.lock().unwrap().remove().unwrap();
    assert_eq!(names(&root(&temp)), ["~tmp"]);
}

#[test]
fn a_claim_sweeps_leftovers_but_not_what_is_worked_on() {
    let (temp, store) = store();
    drop(store.claim(&record("one")).unwrap());
    let staging = root(&temp).join("~tmp");
    for name in ["crashed", "busy"] {
        fs::create_dir_all(staging.join(name).join("vm")).unwrap();
        fs::write(staging.join(name).join("record.json"), "{").unwrap();
    }
    let busy = fs::File::open(staging.join("busy")).unwrap();
    busy.lock().unwrap();
    drop(store.claim(&record("two")).unwrap());
    assert_eq!(names(&staging), ["busy"]);
    assert_eq!(names(&staging.join("busy")), ["record.json", "vm"]);
    drop(busy);
    drop(store.claim(&record("three")).unwrap());
    assert_eq!(names(&staging), [] as [String; 0]);
}

#[test]
fn a_root_others_can_write_to_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(mode)).unwrap();
        let error = Store::open(temp.path()).unwrap_err();
        assert!(matches!(error, Error::Untrusted { .. }), "{mode:o}: {error:?}");
        assert!(error.to_string().contains("others can write to it"), "{error}");
    }
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Store::open(temp.path()).unwrap();
}

#[test]
fn a_root_that_is_a_file_is_refused() {
    let temp = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(temp.path()).unwrap_err();
    assert!(full(&error).contains("Not a directory"), "{}", full(&error));
}
