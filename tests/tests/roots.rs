//! Real root file systems, and what clients ask before they run anything.

use std::process::Command;

use runhcs_tests::{Bundle, Harness, Isolation, in_both, target};

/// A Debian root, made once.
fn debian() -> std::path::PathBuf {
    static MADE: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        let root = target().join("test-rootfs/debian");
        if !root.join("etc/debian_version").exists() || root.join("debootstrap").exists() {
            let _ = std::fs::remove_dir_all(&root);
            std::fs::create_dir_all(root.parent().unwrap()).unwrap();
            let made = Command::new("debootstrap")
                .args(["--variant=minbase", "bookworm"])
                .arg(&root)
                .output();
            let made = made.expect("debootstrap is installed by `make test`");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        }
        root
    })
    .clone()
}

in_both!(a_debian_root_runs, |h: &Harness| {
    let directory = h.path("debian");
    std::fs::create_dir(&directory).unwrap();
    std::os::unix::fs::symlink(debian(), directory.join("rootfs")).unwrap();
    let script = "cat /etc/debian_version | grep -c '^12'; dpkg --audit && ls -l /bin/bash | wc -l; perl -e 'print 6*7, \"\\n\"'";
    let root = debian();
    let bundle = Bundle::with_root(h, directory, &["bash", "-c", script]).edit(|config| {
        config["root"]["path"] = serde_json::json!(root);
        config["root"]["readonly"] = serde_json::json!(true);
    });
    let run = h.new_container(&["run"], &bundle, "debian").ok();
    assert_eq!(run.stdout, "1\n1\n42\n", "{run:?}");
});

#[test]
fn versions_features_and_specs_are_what_clients_expect() {
    Harness::run(Isolation::Process, "versions", |h| {
        let version = h.runhcs(&["--version"]).ok().stdout;
        assert!(
            version.starts_with("runhcs 0.") && version.ends_with("\nspec: 1.3.0\n"),
            "{version}"
        );
        let features = h.runhcs(&["features"]).ok().stdout;
        let features: serde_json::Value = serde_json::from_str(&features).unwrap();
        assert_eq!(features["ociVersionMax"], "1.3.0");
        let linux = &features["linux"];
        assert_eq!(linux["cgroup"]["v2"], true);
        let has = |list: &serde_json::Value, name: &str| {
            list.as_array().unwrap().iter().any(|each| each == name)
        };
        for option in ["ro", "rro", "idmap", "tmpcopyup", "rslave"] {
            assert!(has(&features["mountOptions"], option), "{features}");
        }
        let seccomp = &linux["seccomp"];
        assert!(has(&seccomp["actions"], "SCMP_ACT_NOTIFY"), "{features}");
        assert!(has(&seccomp["operators"], "SCMP_CMP_MASKED_EQ"), "{features}");
        assert!(has(&seccomp["archs"], "SCMP_ARCH_X86_64"), "{features}");
        // The kernels that runhcs runs on all have it.
        for list in ["knownFlags", "supportedFlags"] {
            assert!(has(&seccomp[list], "SECCOMP_FILTER_FLAG_LOG"), "{features}");
        }
        assert!(has(&linux["memoryPolicy"]["modes"], "MPOL_WEIGHTED_INTERLEAVE"), "{features}");
        assert!(has(&linux["memoryPolicy"]["flags"], "MPOL_F_STATIC_NODES"), "{features}");
        for what in ["enabled", "schemata", "monitoring"] {
            assert_eq!(linux["intelRdt"][what], true);
        }
        assert_eq!(linux["netDevices"]["enabled"], true);
        assert_eq!(linux["mountExtensions"]["idmap"]["enabled"], true);
        let bundle = h.path("new");
        std::fs::create_dir(&bundle).unwrap();
        h.runhcs(&["spec", "--bundle", bundle.to_str().unwrap()]).ok();
        assert!(bundle.join("config.json").exists());
        h.runhcs(&["spec", "--bundle", bundle.to_str().unwrap()]).refused("config.json");
    });
}
