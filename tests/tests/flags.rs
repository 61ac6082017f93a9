//! Flags that other tests don't need: what is logged and where, what is kept, who is signalled.

use std::io::Read;
use std::os::unix::net::UnixListener;

use runhcs_tests::{Bundle, ConsoleSocket, Harness, Isolation, in_both};
use serde_json::Value;

in_both!(debug_logs_each_step_with_its_time, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["true"]);
    h.new_container(&["--debug", "--log-format", "json", "create"], &bundle, "box").ok();
    let text = std::fs::read_to_string(h.path("log")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<&str> = lines
        .iter()
        .filter(|line| line["container"] == "box" && line["took"].is_string())
        .map(|line| line["step"].as_str().unwrap())
        .collect();
    let expected: &[&str] = match h.isolation {
        Isolation::Process => {
            &["load", "place", "claim", "notify-socket", "plan", "resources", "container", "main"]
        }
        Isolation::Vm => &[
            "load",
            "place",
            "claim",
            "network",
            "hooks",
            "disks",
            "vm-options",
            "vm-group-plan",
            "vm-group",
            "vm",
            "guest-spec",
            "container",
            "shim",
            "main",
        ],
    };
    assert_eq!(steps, expected, "{text}");
    h.runhcs(&["delete", "--force", "box"]).ok();
});

in_both!(output_and_errors_stay_apart, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sh", "-c", "echo out; echo err >&2"]);
    let run = h.new_container(&["run"], &bundle, "box").ok();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "err\n"));
});

in_both!(run_keeps_what_it_is_told_to_keep, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sh", "-c", "exit 3"]);
    assert_eq!(h.new_container(&["run", "--keep"], &bundle, "box").code, 3);
    assert_eq!(h.state("box")["status"], "stopped");
    h.runhcs(&["delete", "box"]).ok();
});

in_both!(kill_all_reaches_every_process, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sh", "-c", "sleep 1000 & sleep 1000 & wait"]);
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    let count = || h.runhcs(&["ps", "box"]).ok().stdout.lines().skip(1).count();
    runhcs_tests::eventually(|| count() == 3, || format!("{} processes", count()));
    h.runhcs(&["kill", "--all", "box", "KILL"]).ok();
    h.wait_status("box", "stopped");
    h.runhcs(&["delete", "box"]).ok();
});

#[test]
fn the_logs_of_a_vm_go_where_they_are_sent() {
    Harness::run(Isolation::Vm, "vm logs", |h| {
        let bundle = Bundle::new(h, "box", &["true"]);
        let (shim, vm, console) = (h.path("shim.log"), h.path("vm.log"), h.path("console"));
        let listener = UnixListener::bind(&console).unwrap();
        let reader = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut shown = Vec::new();
            connection.read_to_end(&mut shown).unwrap();
            String::from_utf8_lossy(&shown).into_owned()
        });
        let text = |path: &std::path::PathBuf| path.to_str().unwrap().to_owned();
        let flags = [
            "--debug",
            "run",
            "--shim-log",
            &text(&shim),
            "--vm-log",
            &text(&vm),
            "--vm-console",
            &text(&console),
        ];
        h.write_config("kernel-args = \"loglevel=7\"");
        h.new_container(&flags, &bundle, "box").ok();
        let shown = reader.join().unwrap();
        assert!(shown.contains("Linux version"), "the console showed {shown:?}");
        assert!(!std::fs::read_to_string(&vm).unwrap().is_empty(), "the VM's log is empty");
        let said = std::fs::read_to_string(&shim).unwrap();
        assert!(said.contains("the process has ended"), "the container shim said {said:?}");
        std::fs::remove_file(&console).unwrap();
    });
}

#[test]
fn the_defaults_of_the_configuration_file_hold() {
    Harness::run(Isolation::Vm, "file", |h| {
        let bundle = Bundle::new(h, "box", &["uname", "-r"]);
        let config = std::fs::read_to_string(h.path("config.toml")).unwrap();
        let text = format!("isolation = \"vm\"\nowner = \"somebody\"\n{config}");
        std::fs::write(h.path("config.toml"), text).unwrap();
        let path = bundle.path().to_str().unwrap();
        let run = h.runhcs(&["run", "--keep", "--bundle", path, "box"]).ok();
        let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_ne!(run.stdout, host);
        let list = h.runhcs(&["list", "--format", "json"]).ok().stdout;
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(list[0]["owner"], "somebody", "{list}");
        h.runhcs(&["delete", "--force", "box"]).ok();
    });
}

in_both!(a_process_is_given_as_a_descriptor, |h: &Harness| {
    // What procfs says of a descriptor of a process (pidfd_open(2)).
    let process_of = |socket: ConsoleSocket| {
        let pidfd = socket.receive();
        let number = std::os::fd::AsRawFd::as_raw_fd(&pidfd);
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap();
        pid.trim().to_owned()
    };
    let socket = ConsoleSocket::new(&h.path("pidfd"));
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    h.new_container(&["run", "-d", "--pidfd-socket", socket.path()], &bundle, "box").ok();
    assert_eq!(process_of(socket), h.state("box")["pid"].to_string());
    let (socket, pid) = (ConsoleSocket::new(&h.path("further")), h.path("pid"));
    let options = ["--pid-file", pid.to_str().unwrap(), "--pidfd-socket", socket.path()];
    let exec = [&["exec", "-d"][..], &options, &["box", "sleep", "1000"]].concat();
    h.runhcs(&exec).ok();
    assert_eq!(process_of(socket), std::fs::read_to_string(&pid).unwrap());
    h.runhcs(&["delete", "--force", "box"]).ok();
    // Nobody to give it to.
    let nowhere = ["create", "--pidfd-socket", "/nowhere"];
    h.new_container(&nowhere, &bundle, "box").refused("--pidfd-socket /nowhere");
});
