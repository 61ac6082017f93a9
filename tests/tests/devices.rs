//! Device nodes: those that every container has, those of `linux.devices`, and those of a user
//! namespace, which the kernel lets make none.

use runhcs_tests::config::in_user_namespace;
use runhcs_tests::{Bundle, Harness, Isolation, in_both};
use serde_json::{Value, json};

/// The default devices and links of the specification, as `stat` and `readlink` show them.
const DEFAULTS: &str = "\
    character special file 1:3 /dev/null\n\
    character special file 1:5 /dev/zero\n\
    character special file 1:7 /dev/full\n\
    character special file 1:8 /dev/random\n\
    character special file 1:9 /dev/urandom\n\
    character special file 5:0 /dev/tty\n\
    /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";

const LIST_DEFAULTS: &str = "cd /dev
    for d in null zero full random urandom tty; do stat -c '%F %t:%T /dev/%n' $d; done
    for l in fd stdin stdout stderr ptmx; do readlink $l; done
    head -c 3 zero | wc -c; echo x 2>/dev/null >full || echo full; echo x >null";

in_both!(every_container_has_the_default_devices, |h: &Harness| {
    for user_namespace in [false, true] {
        let bundle = Bundle::new(h, "box", &["sh", "-c", LIST_DEFAULTS]).edit(|config| {
            if user_namespace {
                in_user_namespace(config, 0, 65536);
            }
        });
        let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
        assert_eq!(printed, format!("{DEFAULTS}3\nfull\n"), "{user_namespace}");
        std::fs::remove_dir_all(bundle.path()).unwrap();
    }
});

in_both!(each_kind_of_node_is_made_as_asked, |h: &Harness| {
    let script = "stat -c '%n %F %t:%T %a %u:%g' /dev/char /dev/un/buffered /other/pipe /dev/null
        head -c 2 /dev/un/buffered | wc -c";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        config["linux"]["devices"] = json!([
            { "path": "/dev/char", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6 },
            { "path": "/dev/un/buffered", "type": "u", "major": 1, "minor": 5, "fileMode": 0o444 },
            { "path": "/other/pipe", "type": "p", "fileMode": 0o600, "uid": 7, "gid": 8 },
            // In the place of one that is there anyhow.
            { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600 },
        ]);
    });
    let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
    let expected = "/dev/char character special file 1:3 640 5:6\n\
        /dev/un/buffered character special file 1:5 444 0:0\n\
        /other/pipe fifo 0:0 600 7:8\n\
        /dev/null character special file 1:3 600 0:0\n2\n";
    assert_eq!(printed, expected);
});

#[test]
fn a_block_device_is_made_and_its_rule_decides() {
    Harness::run(Isolation::Process, "block", |h| {
        let script = "stat -c '%F %t:%T %a' /dev/block; head -c 1 /dev/block 2>&1 | wc -c";
        let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
            // There is a loop device 0 as soon as it is opened, and without a rule it isn't.
            config["linux"]["devices"] = json!([
                { "path": "/dev/block", "type": "b", "major": 7, "minor": 0, "fileMode": 0o660 }
            ]);
        });
        let run = h.new_container(&["run"], &bundle, "box").ok();
        let (first, _) = run.stdout.split_once('\n').unwrap();
        assert_eq!(first, "block special file 7:0 660");
        assert!(run.stdout.ends_with('\n') && !run.stdout.ends_with("\n1\n"), "{run:?}");
    });
}

#[test]
fn a_user_namespace_gets_the_hosts_devices_as_mounts() {
    Harness::run(Isolation::Process, "user namespace", |h| {
        let device = |path: &str, minor: u32| json!({ "path": path, "type": "c", "major": 1, "minor": minor });
        let with = |name: &str, device: Value| {
            let script = "grep ' /dev/null ' /proc/self/mountinfo | wc -l
                stat -c '%F %a' /dev/pipe; head -c 1 /dev/zero | wc -c";
            Bundle::new(h, name, &["sh", "-c", script]).edit(|config| {
                in_user_namespace(config, 0, 65536);
                let pipe = json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o600 });
                config["linux"]["devices"] = json!([device, pipe]);
            })
        };
        let bundle = with("box", device("/dev/zero", 5));
        let printed = h.new_container(&["run"], &bundle, "box").ok().stdout;
        // A FIFO is no device.
        assert_eq!(printed, "1\nfifo 600\n1\n");
        // What the host has not, or as something else, can't be had.
        for (path, why) in [("/dev/no-such", "o such file"), ("/dev/full", "something else")] {
            let bundle = with("refused", device(path, 5));
            let refused = h.new_container(&["create"], &bundle, "refused").refused(path);
            assert!(refused.stderr.contains(why), "{refused:?}");
            std::fs::remove_dir_all(bundle.path()).unwrap();
        }
    });
}
