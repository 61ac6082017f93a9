//! Containers in the foreground of a terminal, in both isolations.

use std::io::Write;

use runhcs_tests::{Bundle, Harness, Session, eventually, in_both, read_until, type_in};
use serde_json::json;

fn bundle(h: &Harness, script: &str) -> Bundle {
    Bundle::new(h, "box", &["sh", "-c", script])
        .edit(|config| config["process"]["terminal"] = json!(true))
}

/// `run` of the bundle on a terminal.
fn run(h: &Harness, bundle: &Bundle) -> Session {
    let path = bundle.path().to_str().unwrap();
    let arguments = [&["run"], &h.flag()[..], &["--bundle", path, "box"]].concat();
    Session::start(h.command(&arguments), (30, 100))
}

in_both!(the_terminal_is_lent_and_given_back, |h: &Harness| {
    let script = "stty size; while read line; do test $line = end && exit 7; \
                  echo got $line; stty size; done";
    let bundle = bundle(h, script);
    let mut session = run(h, &bundle);
    read_until(&mut session.master, "30 100");
    eventually(|| session.is_raw(), || "the terminal isn't in raw mode".into());
    type_in(&mut session.master, "first\n");
    read_until(&mut session.master, "got first\r\n30 100");
    session.resize(40, 120);
    // The container is told a moment later.
    let mut shown = String::new();
    for _ in 0..100 {
        type_in(&mut session.master, "again\n");
        shown = read_until(&mut session.master, "0\r\n");
        if shown.contains("40 120") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(shown.contains("40 120"), "{shown}");
    type_in(&mut session.master, "end\n");
    assert_eq!(session.wait(), 7);
    assert!(!session.is_raw());
});

in_both!(a_further_process_has_the_terminal, |h: &Harness| {
    let main = Bundle::new(h, "box", &["sleep", "1000"]);
    h.new_container(&["run", "--detach"], &main, "box").ok();
    let script = "stty size; read line; echo got $line; exit 9";
    let exec = h.command(&["exec", "--tty", "box", "sh", "-c", script]);
    let mut session = Session::start(exec, (31, 101));
    read_until(&mut session.master, "31 101");
    type_in(&mut session.master, "word\n");
    read_until(&mut session.master, "got word");
    assert_eq!(session.wait(), 9);
    assert!(!session.is_raw());
    let script = "echo ready; while read line; do stty size; done";
    let exec = h.command(&["exec", "--tty", "box", "sh", "-c", script]);
    let mut session = Session::start(exec, (31, 101));
    read_until(&mut session.master, "ready");
    session.resize(41, 121);
    // It is told a moment later.
    let mut shown = String::new();
    eventually(
        || {
            type_in(&mut session.master, "\n");
            shown = read_until(&mut session.master, "1\r\n");
            shown.contains("41 121")
        },
        || "the size never arrived".into(),
    );
    // The end of its input.
    type_in(&mut session.master, "\x04");
    assert_eq!(session.wait(), 0);
    assert!(!session.is_raw());
    // Ctrl-C is the container's: its terminal makes a signal of it, not this one.
    let script = "trap 'exit 3' INT; echo ready; while true; do sleep 0.1; done";
    let exec = h.command(&["exec", "--tty", "box", "sh", "-c", script]);
    let mut session = Session::start(exec, (31, 101));
    read_until(&mut session.master, "ready");
    type_in(&mut session.master, "\x03");
    assert_eq!(session.wait(), 3);
    assert!(!session.is_raw());
    h.runhcs(&["delete", "--force", "box"]).ok();
});

in_both!(signals_reach_the_container_and_the_terminal_is_given_back, |h: &Harness| {
    let bundle = bundle(h, "trap 'exit 5' TERM; echo ready; while true; do sleep 0.1; done");
    let mut session = run(h, &bundle);
    read_until(&mut session.master, "ready");
    eventually(|| session.is_raw(), || "the terminal isn't in raw mode".into());
    let pid = rustix::process::Pid::from_child(&session.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(session.wait(), 5);
    assert!(!session.is_raw());
});

in_both!(a_long_paste_is_not_lost_nor_does_it_block, |h: &Harness| {
    const LINES: usize = 4000;
    let bundle = bundle(
        h,
        "stty -echo; echo ready; i=0; while read line; do \
                            test $line = end && echo $i lines && exit 0; echo $line; \
                            i=$((i+1)); done",
    );
    let mut session = run(h, &bundle);
    read_until(&mut session.master, "ready");
    let mut typing = session.master.try_clone().unwrap();
    let typist = std::thread::spawn(move || {
        for number in 0..LINES {
            writeln!(typing, "line-{number}-{}", "x".repeat(60)).unwrap();
        }
        typing.write_all(b"end\n").unwrap();
    });
    read_until(&mut session.master, &format!("{LINES} lines"));
    typist.join().unwrap();
    assert_eq!(session.wait(), 0);
});

in_both!(without_input_nobody_is_busy, |h: &Harness| {
    let bundle = bundle(h, "sleep 2; echo done");
    let path = bundle.path().to_str().unwrap().to_owned();
    let arguments = [&["run"], &h.flag()[..], &["--bundle", &path, "box"]].concat();
    let mut command = h.command(&arguments);
    // A pipe that nobody writes to any more.
    command.stdin(std::io::pipe().unwrap().0);
    let (child, files) = h.spawn(command);
    let pid = child.id();
    eventually(|| h.runhcs(&["state", "box"]).stdout.contains("\"running\""), || "it runs".into());
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let used = ticks() - before;
    // Of 100 in a second.
    assert!(used < 20, "{used} ticks");
    let outcome = runhcs_tests::wait(child, files);
    assert_eq!((outcome.code, outcome.stdout.trim()), (0, "done"), "{outcome:?}");
});
