//! A container's life from the command line, in both isolations.

use runhcs_tests::{Bundle, ConsoleSocket, Harness, in_both, read_until, type_in, wait};
use serde_json::json;

in_both!(create_start_exec_kill_delete, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    let pid_file = h.path("pid");
    h.new_container(&["create", "--pid-file", pid_file.to_str().unwrap()], &bundle, "box").ok();
    let state = h.state("box");
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"].to_string(), std::fs::read_to_string(&pid_file).unwrap());
    assert_eq!(state["bundle"], json!(bundle.path()));
    assert_eq!(state["id"], "box");
    h.runhcs(&["start", "box"]).ok();
    assert_eq!(h.state("box")["status"], "running");
    h.runhcs(&["start", "box"]).refused("already running");
    let exec = h.runhcs(&["exec", "box", "sh", "-c", "echo out; echo err >&2; exit 4"]);
    assert_eq!((exec.code, exec.stdout.as_str(), exec.stderr.as_str()), (4, "out\n", "err\n"));
    h.runhcs(&["delete", "box"]).refused("not stopped");
    h.runhcs(&["kill", "box", "KILL"]).ok();
    h.wait_status("box", "stopped");
    assert_eq!(h.state("box")["pid"], 0);
    h.runhcs(&["kill", "box", "KILL"]).refused("container not running");
    h.runhcs(&["exec", "box", "true"]).exec_refused("cannot exec in a stopped container");
    h.runhcs(&["delete", "box"]).ok();
    h.runhcs(&["state", "box"]).refused("container box does not exist");
});

in_both!(exit_codes_come_back, |h: &Harness| {
    for (script, code) in [("exit 0", 0), ("exit 1", 1), ("kill -9 $$", 137), ("kill -15 $$", 143)]
    {
        // A process can't kill itself as pid 1, so it does in a child that the shell becomes.
        let script = format!("sh -c '{script}'; exit $?");
        let bundle = Bundle::new(h, "box", &["sh", "-c", &script]);
        let run = h.new_container(&["run"], &bundle, "box");
        assert_eq!(run.code, code, "{script}: {run:?}");
        std::fs::remove_dir_all(bundle.path()).unwrap();
    }
});

in_both!(signals_end_the_init_process, |h: &Harness| {
    for (signal, code) in [("KILL", 137), ("TERM", 143)] {
        let script = "trap 'exit 143' TERM; echo ready; while :; do sleep 0.1; done";
        let bundle = Bundle::new(h, "box", &["sh", "-c", script]);
        let path = bundle.path().to_str().unwrap();
        let [flag, isolation] = h.flag();
        let (child, files) = h.spawn(h.command(&["run", flag, isolation, "--bundle", path, "box"]));
        runhcs_tests::eventually(
            || std::fs::read_to_string(&files.0).unwrap().contains("ready"),
            || format!("{files:?}"),
        );
        h.runhcs(&["kill", "box", signal]).ok();
        assert_eq!(wait(child, files).code, code);
        std::fs::remove_dir_all(bundle.path()).unwrap();
    }
});

in_both!(ten_mebibytes_pass_unharmed, |h: &Harness| {
    let data: Vec<u8> =
        (0..10u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let input = h.path("input");
    std::fs::write(&input, &data).unwrap();
    let bundle = Bundle::new(h, "box", &["sh", "-c", "cat; exit 5"]);
    let path = bundle.path().to_str().unwrap();
    let [flag, isolation] = h.flag();
    let mut command = h.command(&["run", flag, isolation, "--bundle", path, "box"]);
    command.stdin(std::fs::File::open(&input).unwrap());
    let (child, files) = h.spawn(command);
    let output = files.0.clone();
    assert_eq!(wait(child, files).code, 5);
    assert!(std::fs::read(output).unwrap() == data, "what came out is not what went in");
});

in_both!(exec_takes_its_options, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    let script = "echo $(id -u) $(id -g) $PWD $A; grep NoNewPrivs /proc/self/status";
    let exec = h.runhcs(&[
        "exec", "--user", "7:8", "--cwd", "/tmp", "--env", "A=b c", "box", "sh", "-c", script,
    ]);
    assert_eq!(exec.ok().stdout, "7 8 /tmp b c\nNoNewPrivs:\t1\n");
    let document = h.path("process.json");
    let process = json!({ "cwd": "/", "args": ["sh", "-c", "exit 33"], "env": ["PATH=/bin"],
                          "user": { "uid": 0, "gid": 0 } });
    std::fs::write(&document, process.to_string()).unwrap();
    let exec = h.runhcs(&["exec", "--process", document.to_str().unwrap(), "box"]);
    assert_eq!(exec.code, 33, "{exec:?}");
    let pid_file = h.path("exec-pid");
    h.runhcs(&[
        "exec",
        "--detach",
        "--pid-file",
        pid_file.to_str().unwrap(),
        "box",
        "sleep",
        "500",
    ])
    .ok();
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    assert!(std::path::Path::new("/proc").join(pid).exists());
    let pids = h.runhcs(&["ps", "--format", "json", "box"]).ok().stdout;
    assert_eq!(serde_json::from_str::<Vec<u32>>(&pids).unwrap().len(), 2);
    h.runhcs(&["exec", "box", "no-such-program"])
        .exec_refused("executable file not found in $PATH");
    h.runhcs(&["delete", "--force", "box"]).ok();
});

in_both!(a_terminal_goes_through_the_console_socket, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sh"]).edit(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["env"] = json!(["PATH=/bin", "PS1=ready> "]);
    });
    let console = ConsoleSocket::new(&h.path("console"));
    h.new_container(&["create", "--console-socket", console.path()], &bundle, "box").ok();
    let mut master = console.receive();
    h.runhcs(&["start", "box"]).ok();
    read_until(&mut master, "ready> ");
    type_in(&mut master, "tty; echo $((6*7))\n");
    assert!(read_until(&mut master, "42\r\n").contains("/dev/"));
    let size = rustix::termios::Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    runhcs_tests::eventually(
        || {
            type_in(&mut master, "stty size; echo done\n");
            read_until(&mut master, "done\r\n").contains("33 77")
        },
        || "the size never arrived".into(),
    );
    type_in(&mut master, "exit 0\n");
    h.wait_status("box", "stopped");
    h.runhcs(&["delete", "box"]).ok();
});

in_both!(pause_stops_time_and_resume_goes_on, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    h.runhcs(&["pause", "box"]).ok();
    assert_eq!(h.state("box")["status"], "paused");
    h.runhcs(&["pause", "box"]).refused("that is paused");
    h.runhcs(&["exec", "box", "true"]).exec_refused("paused");
    h.runhcs(&["resume", "box"]).ok();
    assert_eq!(h.state("box")["status"], "running");
    h.runhcs(&["resume", "box"]).refused("that is running");
    let list = h.runhcs(&["list"]).ok().stdout;
    let line = list.lines().nth(1).unwrap();
    assert!(line.starts_with("box") && line.contains("running"), "{list}");
    assert_eq!(h.runhcs(&["list", "-q"]).ok().stdout, "box\n");
    let json = h.runhcs(&["list", "--format", "json"]).ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["id"], "box");
    h.runhcs(&["pause", "box"]).ok();
    h.runhcs(&["delete", "--force", "box"]).ok();
});

in_both!(the_configuration_holds_inside, |h: &Harness| {
    let volume = h.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("from-outside"), "hello\n").unwrap();
    let file = h.path("a-file");
    std::fs::write(&file, "one file\n").unwrap();
    let script = "hostname; cat /volume/from-outside; echo back > /volume/from-inside; cat /etc/one;\
        echo x > /etc/one 2>/dev/null || echo one is read-only; touch /x 2>/dev/null || echo root is read-only;\
        grep CapEff /proc/self/status; ulimit -n; cat /proc/timer_list | wc -c;\
        echo 1 > /proc/sys/kernel/panic 2>/dev/null || echo sys is read-only; echo x > /dev/null && echo null works";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        config["hostname"] = json!("the-box");
        config["root"]["readonly"] = json!(true);
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 123, "hard": 123 }]);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({ "destination": "/volume", "type": "bind", "source": volume, "options": ["rbind", "rw"] }));
        mounts.push(json!({ "destination": "/etc/one", "type": "bind", "source": file, "options": ["bind", "ro"] }));
    });
    std::fs::create_dir(bundle.path().join("rootfs/volume")).unwrap();
    std::fs::write(bundle.path().join("rootfs/etc/one"), "").unwrap();
    let run = h.new_container(&["run"], &bundle, "box").ok();
    let expected = "the-box\nhello\none file\none is read-only\nroot is read-only\n\
        CapEff:\t0000000020000420\n123\n0\nsys is read-only\nnull works\n";
    assert_eq!(run.stdout, expected, "{run:?}");
    assert_eq!(std::fs::read_to_string(volume.join("from-inside")).unwrap(), "back\n");
});

in_both!(limits_are_set, |h: &Harness| {
    // Version 1 on this host (if it has it), version 2 in the VM.
    let script = "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes pids.max pids/pids.max 2>/dev/null";
    let bundle = Bundle::new(h, "box", &["sh", "-c", &format!("{script}; true")]).edit(|config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 67_108_864 });
        config["linux"]["resources"]["pids"] = json!({ "limit": 33 });
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        mounts.push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                            "options": ["nosuid", "noexec", "nodev", "ro"] }));
    });
    let run = h.new_container(&["run"], &bundle, "box").ok();
    assert_eq!(run.stdout, "67108864\n33\n", "{run:?}");
});

in_both!(devices_that_were_not_granted_are_refused, |h: &Harness| {
    // The rule is the cgroup's: the node itself is there and its mode lets everybody.
    let script = "cat /dev/kmsg-node > /dev/null 2>/dev/null && echo open || echo refused; head -c 1 /dev/zero | wc -c";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        config["linux"]["devices"] = json!([
            { "path": "/dev/kmsg-node", "type": "c", "major": 1, "minor": 11, "fileMode": 438 }
        ]);
        config["linux"]["resources"]["devices"] = json!([{ "allow": false, "access": "rwm" }]);
    });
    let run = h.new_container(&["run"], &bundle, "box").ok();
    assert_eq!(run.stdout, "refused\n1\n", "{run:?}");
});

in_both!(of_concurrent_creates_one_wins, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    let path = bundle.path().to_str().unwrap();
    let [flag, isolation] = h.flag();
    let started: Vec<_> = (0..6)
        .map(|_| h.spawn(h.command(&["create", flag, isolation, "--bundle", path, "box"])))
        .collect();
    let outcomes: Vec<_> = started.into_iter().map(|(child, files)| wait(child, files)).collect();
    let won = outcomes.iter().filter(|outcome| outcome.code == 0).count();
    assert_eq!(won, 1, "{outcomes:?}");
    for lost in outcomes.into_iter().filter(|outcome| outcome.code != 0) {
        lost.refused("already exists");
    }
    h.runhcs(&["delete", "--force", "box"]).ok();
});
