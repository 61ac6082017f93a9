//! `linux.maskedPaths` and `linux.readonlyPaths`: of files, directories, mounts, and what is not
//! there, also where the container's root would have the right to undo them.

use runhcs_tests::config::in_user_namespace;
use runhcs_tests::{Bundle, Harness, in_both};
use serde_json::json;

in_both!(paths_are_hidden_or_kept_from_being_written, |h: &Harness| {
    let script = "cat /secret/file /file; ls -A /secret/dir /dir
        mkdir /dir/new 2>&1; echo x 2>/dev/null >/file
        for f in /kept/file /single /kept/new /tmpfs/new; do
            (echo changed >$f) 2>/dev/null || echo no $f
        done; cat /kept/file /single; echo x >/kept-not && echo free
        ls /nowhere 2>/dev/null; grep -E ' /(dir|kept|tmpfs) ' /proc/self/mountinfo | cut -d' ' -f5,6";
    for user_namespace in [false, true] {
        let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
            config["linux"]["maskedPaths"] =
                json!(["/secret/file", "/secret/dir", "/file", "/dir", "/nowhere"]);
            config["linux"]["readonlyPaths"] = json!(["/kept", "/single", "/tmpfs", "/nowhere/2"]);
            let tmpfs = json!({
                "destination": "/tmpfs", "type": "tmpfs", "source": "x", "options": ["nosuid"]
            });
            config["mounts"].as_array_mut().unwrap().push(tmpfs);
            if user_namespace {
                in_user_namespace(config, 0, 65536);
            }
        });
        let root = bundle.path().join("rootfs");
        for directory in ["secret/dir", "dir", "kept"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in ["secret/file", "secret/dir/file", "file", "dir/file", "kept/file", "single"] {
            std::fs::write(root.join(file), "as it was\n").unwrap();
        }
        let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
        let expected = "/dir:\n\n/secret/dir:\n\
            mkdir: can't create directory '/dir/new': Read-only file system\n\
            no /kept/file\nno /single\nno /kept/new\nno /tmpfs/new\n\
            as it was\nas it was\nfree\n";
        let (said, mounts) = printed.split_at(printed.find("/tmpfs ").unwrap_or(printed.len()));
        assert_eq!(said, expected, "{user_namespace}");
        // The options that a mount has had stay.
        for part in ["/tmpfs ro,nosuid", "/kept ro", "/dir ro"] {
            assert!(mounts.contains(part), "{part}: {mounts}");
        }
        assert_eq!(std::fs::read_to_string(root.join("file")).unwrap(), "as it was\n");
        std::fs::remove_dir_all(bundle.path()).unwrap();
    }
});
