//! A container's processes seen and reached from outside: `ps`, `kill`, `resize-tty`.

use runhcs_tests::{Bundle, ConsoleSocket, Harness, Isolation, eventually, in_both, read_until};
use serde_json::{Value, json};

in_both!(ps_shows_the_containers_processes_with_pss_own_options, |h: &Harness| {
    let script = "sleep 1111 & exec sleep 2222";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        config["process"]["user"] = json!({ "uid": 33, "gid": 33 });
    });
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    let ps = |options: &[&str]| h.runhcs(&[&["ps", "box"], options].concat()).ok().stdout;
    let lines = |text: &str| text.lines().skip(1).count();
    // Until both have become what they are to be: a shell's command line names them before that.
    let programs = || {
        let text = ps(&["--", "-e", "-o", "pid,args"]);
        let rows = text.lines().skip(1).map(str::trim_start);
        let mut rows: Vec<_> = rows.filter_map(|row| Some(row.split_once(' ')?.1)).collect();
        rows.sort();
        rows.join(",")
    };
    eventually(|| programs() == "sleep 1111,sleep 2222", programs);
    let full = ps(&[]);
    assert!(full.lines().next().unwrap().contains("PPID"), "{full}");
    assert!(full.lines().skip(1).all(|line| line.starts_with("www-data")), "{full}");
    assert!(full.contains("sleep 1111"), "{full}");
    // Options as ps has them, with and without runc's `--`.
    let chosen = ps(&["--", "-o", "pid,ppid,uid,stat,args", "-e"]);
    assert_eq!(lines(&chosen), 2, "{chosen}");
    let fields = |text: &str| -> Vec<Vec<String>> {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        text.lines().skip(1).map(words).collect()
    };
    let rows = fields(&chosen);
    let init = rows.iter().find(|row| row.ends_with(&["sleep".into(), "2222".into()])).unwrap();
    let child = rows.iter().find(|row| row.ends_with(&["sleep".into(), "1111".into()])).unwrap();
    assert_eq!(child[1], init[0], "{chosen}");
    // It sleeps, or is about to: its program may still be read from the shared file system.
    assert!(init[2] == "33" && init[3].starts_with(['S', 'R', 'D']), "{chosen}");
    assert!(ps(&["aux"]).contains("%MEM"));
    h.runhcs(&["ps", "box", "-o", "args"]).refused("no PID column");
    h.runhcs(&["ps", "box", "--no-such-option"]).refused("--no-such-option");

    // As JSON, pids of this host.
    let pid_file = h.path("exec.pid");
    let detached = ["exec", "--detach", "--pid-file", pid_file.to_str().unwrap()];
    h.runhcs(&[&detached[..], &["box", "sleep", "3333"]].concat()).ok();
    let exec: u64 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    let json = h.runhcs(&["ps", "--format", "json", "box"]).ok().stdout;
    let pids: Vec<u64> = serde_json::from_str(&json).unwrap();
    assert!(pids.contains(&h.state("box")["pid"].as_u64().unwrap()), "{pids:?}");
    assert!(pids.contains(&exec), "{pids:?}");
    // In a VM, those that something on this host stands for.
    assert_eq!(pids.len(), if h.isolation == Isolation::Vm { 2 } else { 3 }, "{pids:?}");
    eventually(|| ps(&[]).contains("sleep 3333"), || ps(&[]));
    h.runhcs(&["delete", "--force", "box"]).ok();
});

// A process names itself as it likes, and what procfs shows of it need not be text.
in_both!(a_process_may_have_any_name, |h: &Harness| {
    let script = "printf 'a) \\377 (Z' >/proc/self/comm; echo named >/named; read forever";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]).edit(|config| {
        config["root"]["readonly"] = json!(false);
        config["process"]["terminal"] = json!(true);
    });
    let socket = ConsoleSocket::new(&h.path("console"));
    let console = h.path("console");
    h.new_container(
        &["run", "--detach", "--console-socket", console.to_str().unwrap()],
        &bundle,
        "box",
    )
    .ok();
    let _master = socket.receive();
    let exec = |program: &[&str]| h.runhcs(&[&["exec", "box"], program].concat());
    eventually(|| exec(&["cat", "/named"]).stdout == "named\n", || format!("{:?}", h.state("box")));
    assert_eq!(h.state("box")["status"], "running");
    h.runhcs(&["pause", "box"]).ok();
    h.runhcs(&["resume", "box"]).ok();
    h.runhcs(&["kill", "box", "KILL"]).ok();
    h.wait_status("box", "stopped");
    h.runhcs(&["delete", "box"]).ok();
});

in_both!(real_time_signals_arrive, |h: &Harness| {
    let script = "trap 'echo real-time; exit 5' 37; echo ready; while :; do sleep 0.1; done";
    let bundle = Bundle::new(h, "box", &["sh", "-c", script]);
    let path = bundle.path().to_str().unwrap();
    let command = [&["run", "--keep"][..], &h.flag(), &["--bundle", path, "box"]].concat();
    let (child, files) = h.spawn(h.command(&command));
    let output = || std::fs::read_to_string(&files.0).unwrap_or_default();
    eventually(|| output() == "ready\n", output);
    h.runhcs(&["kill", "box", "RTMIN+3"]).ok();
    let run = runhcs_tests::wait(child, files.clone());
    assert_eq!((run.code, run.stdout.as_str()), (5, "ready\nreal-time\n"), "{run:?}");
    h.runhcs(&["kill", "box", "SIGRTMIN+31"]).refused("RTMIN+31");
    h.runhcs(&["kill", "box", "65"]).refused("65");
    h.runhcs(&["kill", "box", "RTMAX"]).refused("not running");
    h.runhcs(&["delete", "box"]).ok();
});

in_both!(every_signal_arrives_as_itself, |h: &Harness| {
    // But for those that no program can catch, that libc keeps, and that the script's own children
    // cause.
    let all: Vec<u32> = (1..=64).filter(|number| ![9, 17, 19, 32, 33].contains(number)).collect();
    let numbers: Vec<String> = all.iter().map(u32::to_string).collect();
    let script = format!(
        "for s in {}; do trap \"echo got $s\" $s; done; echo ready; while :; do sleep 0.05; done",
        numbers.join(" ")
    );
    let bundle = Bundle::new(h, "box", &["sh", "-c", &script]);
    let path = bundle.path().to_str().unwrap();
    let command = [&["run", "--keep"][..], &h.flag(), &["--bundle", path, "box"]].concat();
    let (child, files) = h.spawn(h.command(&command));
    let output = || std::fs::read_to_string(&files.0).unwrap_or_default();
    eventually(|| output() == "ready\n", output);
    let mut expected = "ready\n".to_owned();
    for number in numbers {
        h.runhcs(&["kill", "box", &number]).ok();
        expected += &format!("got {number}\n");
        // One after another: several that wait have an order of their own.
        eventually(|| output() == expected, output);
    }
    h.runhcs(&["kill", "box", "KILL"]).ok();
    assert_eq!(runhcs_tests::wait(child, files.clone()).code, 137);
    h.runhcs(&["delete", "box"]).ok();
});

in_both!(a_signal_for_all_reaches_children_and_execs, |h: &Harness| {
    let note = |name: &str| format!("trap 'echo {name} >> /heard; exit' USR2; sleep 1000 & wait");
    let script = format!("sh -c \"{}\" & {}", note("child"), note("init"));
    let bundle = Bundle::new(h, "box", &["sh", "-c", &script]);
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    h.runhcs(&["exec", "--detach", "box", "sh", "-c", &note("exec")]).ok();
    // Each shell starts its program once it has set its trap, and names it on its own command line.
    let listed = || h.runhcs(&["ps", "box", "--", "-e", "-o", "pid,args"]).ok().stdout;
    let programs = |text: &str| text.lines().filter(|line| line.ends_with(" sleep 1000")).count();
    eventually(|| programs(&listed()) == 3, listed);
    h.runhcs(&["kill", "--all", "box", "USR2"]).ok();
    h.wait_status("box", "stopped");
    let heard = || {
        let text = std::fs::read_to_string(bundle.path().join("rootfs/heard")).unwrap_or_default();
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    // The init process's end may have ended the others before they could write.
    assert!(heard().contains(&"init".to_owned()), "{:?}", heard());
    h.runhcs(&["delete", "box"]).ok();
});

fn with_terminal(config: &mut Value) {
    config["process"]["terminal"] = json!(true);
    config["process"]["env"] = json!(["PATH=/bin", "PS1=ready> "]);
}

in_both!(a_terminal_is_resized_by_command, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sh"]).edit(with_terminal);
    let console = ConsoleSocket::new(&h.path("console"));
    h.new_container(&["create", "--console-socket", console.path()], &bundle, "box").ok();
    let mut master = console.receive();
    h.runhcs(&["start", "box"]).ok();
    read_until(&mut master, "ready> ");
    // A further process has a terminal of its own.
    let (console, pid_file) = (ConsoleSocket::new(&h.path("exec-console")), h.path("exec.pid"));
    h.runhcs(&[
        "exec",
        "--detach",
        "--tty",
        "--console-socket",
        console.path(),
        "--pid-file",
        pid_file.to_str().unwrap(),
        "box",
        "sh",
    ])
    .ok();
    let mut exec_master = console.receive();
    read_until(&mut exec_master, "ready> ");
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    h.runhcs(&["resize-tty", "box", "123", "45"]).ok();
    h.runhcs(&["resize-tty", "--pid", &pid, "box", "67", "8"]).ok();
    for (master, size) in [(&mut master, "45 123"), (&mut exec_master, "8 67")] {
        runhcs_tests::type_in(master, "stty size; echo d''one\n");
        let shown = read_until(master, "done\r\n");
        assert!(shown.contains(size), "{shown}");
    }
    h.runhcs(&["resize-tty", "box", "0", "45"]).refused("0");
    h.runhcs(&["resize-tty", "box", "80", "65536"]).refused("65536");
    h.runhcs(&["resize-tty", "--pid", "1", "box", "80", "25"]).refused("process 1");
    h.runhcs(&["delete", "--force", "box"]).ok();
    let bundle = Bundle::new(h, "plain", &["sleep", "1000"]);
    h.new_container(&["run", "--detach"], &bundle, "plain").ok();
    h.runhcs(&["resize-tty", "plain", "80", "25"]).refused("no terminal");
    h.runhcs(&["delete", "--force", "plain"]).ok();
});
