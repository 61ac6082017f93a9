//! The store on file systems that refuse. They are mounted detached (fsmount(2)), so they are seen
//! nowhere and go with their descriptor.

mod common;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use common::{full, id, names, record};
use runhcs_state::{Error, Store};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};
use rustix::thread::UnshareFlags;

/// A tmpfs and the path of a directory in it; `None`, and the reason is printed, where the tests
/// don't run as root.
fn tmpfs(options: &[(&str, &str)], attributes: MountAttrFlags) -> Option<(OwnedFd, PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a tmpfs takes root");
        return None;
    }
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).expect("fsopen");
    for (key, value) in [("mode", "0700")].iter().chain(options) {
        fsconfig_set_string(&context, *key, *value).expect("fsconfig");
    }
    fsconfig_create(&context).expect("create a tmpfs");
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).expect("fsmount");
    let path = format!("/proc/self/fd/{}/.", mount.as_raw_fd()).into();
    Some((mount, path))
}

#[test]
fn a_full_file_system_changes_nothing() {
    let Some((_mount, root)) = tmpfs(&[("size", "64k")], MountAttrFlags::empty()) else { return };
    let store = Store::open(&root).unwrap();
    let locked = store.claim(&record("one")).unwrap();
    locked.put("v", &"small").unwrap();

    let error = locked.put("v", &"x".repeat(1 << 20)).unwrap_err();
    let text = full(&error);
    assert!(text.starts_with("cannot write ") && text.contains("No space left"), "{text}");
    assert_eq!(locked.get::<String>("v").unwrap().as_deref(), Some("small"));
    assert_eq!(names(locked.dir()), ["record.json", "v.json"]);

    std::fs::write(root.join("filler"), vec![0; 1 << 20]).unwrap_err();
    let error = store.claim(&record("two")).unwrap_err();
    assert!(full(&error).contains("No space left"), "{}", full(&error));
    assert!(matches!(store.entry(&id("two")), Err(Error::NotFound(_))));
    assert_eq!(names(&root.join("~tmp")), [] as [String; 0]);
    // What is there can still be removed.
    locked.remove().unwrap();
    drop(locked);
    assert_eq!(names(&root), ["filler", "~tmp"]);
}

/// Unmounts, so that the temporary directory can go even if the test fails.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).expect("unmount");
    }
}

#[test]
fn removal_enters_no_mount() {
    let Some((foreign, content)) = tmpfs(&[], MountAttrFlags::empty()) else { return };
    std::fs::write(content.join("precious"), "").unwrap();
    let thread = std::thread::spawn(move || {
        // SAFETY: the thread leaves the mount namespace and file system context it shares with the
        // others; no descriptor table is unshared, so no descriptor changes its meaning.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.expect("unshare");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .expect("make all mounts private");
        let (_temp, store) = common::store();
        let locked = store.claim(&record("one")).unwrap();
        let point = locked.dir().join("vm");
        std::fs::create_dir(&point).unwrap();
        let by_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&foreign, "", CWD, &point, by_descriptor).expect("move_mount");
        let mounted = Mounted(point.clone());

        let text = full(&locked.remove().unwrap_err());
        assert!(text.starts_with("cannot remove "), "{text}");
        assert_eq!(names(&point), ["precious"]);
        let entry = store.entry(&id("one")).unwrap();
        assert_eq!(entry.record().unwrap(), record("one"));
        drop(mounted);
        drop(locked);
        entry.lock().unwrap().remove().unwrap();
    });
    thread.join().unwrap();
}

#[test]
fn no_inodes_left_is_a_clear_error() {
    // The root, `~tmp`, one entry and its record.
    let Some((_mount, root)) = tmpfs(&[("nr_inodes", "4")], MountAttrFlags::empty()) else {
        return;
    };
    let store = Store::open(&root).unwrap();
    drop(store.claim(&record("one")).unwrap());
    let error = store.claim(&record("two")).unwrap_err();
    let text = full(&error);
    assert!(text.starts_with("cannot make the entry ") && text.contains("No space"), "{text}");
    assert_eq!(names(&root), ["one", "~tmp"]);
}

#[test]
fn a_read_only_file_system_is_a_clear_error() {
    let Some((_mount, root)) = tmpfs(&[], MountAttrFlags::MOUNT_ATTR_RDONLY) else { return };
    let store = Store::open(&root).unwrap();
    let error = store.claim(&record("one")).unwrap_err();
    assert!(full(&error).contains("Read-only file system"), "{}", full(&error));
    assert_eq!(store.list().unwrap().len(), 0);
}
