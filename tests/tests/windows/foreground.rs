//! The caller's console while a process runs in the foreground. It is a console of Wine's, which is
//! shown on a terminal of the test's own.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use runhcs_tests::Session;
use runhcs_tests::eventually;
use runhcs_tests::wine::{Wine, windows_path};
use serde_json::{Value, json};

use crate::kinds::{Kind, in_all};

/// What a console does with lines, echo, and keys such as Ctrl-C (`ENABLE_LINE_INPUT`,
/// `ENABLE_ECHO_INPUT`, `ENABLE_PROCESSED_INPUT`).
const COOKED: u32 = 0x2 | 0x4 | 0x1;
/// `ENABLE_VIRTUAL_TERMINAL_INPUT`.
const VT_INPUT: u32 = 0x200;
/// `ENABLE_PROCESSED_OUTPUT`, `ENABLE_VIRTUAL_TERMINAL_PROCESSING`, `DISABLE_NEWLINE_AUTO_RETURN`.
const VT_OUTPUT: u32 = 0x1 | 0x4 | 0x8;
/// `CP_UTF8`.
const UTF8: u32 = 65001;

/// How a console is set.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Settings {
    input: u32,
    output: u32,
    code_pages: [u32; 2],
}

impl Settings {
    fn is_raw(self) -> bool {
        let Self { input, output, code_pages } = self;
        input & COOKED == 0
            && input & VT_INPUT != 0
            && output & VT_OUTPUT == VT_OUTPUT
            && code_pages == [UTF8; 2]
    }
}

/// A console with a command that runs in it.
pub struct Watched<'a> {
    wine: &'a Wine,
    session: Session,
    record: PathBuf,
}

impl<'a> Watched<'a> {
    /// Starts the command in a new console.
    fn start(wine: &'a Wine, arguments: &[&str]) -> Self {
        Self::start_command(wine, "console", wine.runhcs_command(arguments))
    }

    /// The same by another request of the probe's, with a command that is made already. It has the
    /// environment that it asks for.
    pub fn start_command(wine: &'a Wine, request: &str, inner: Command) -> Self {
        let record = wine.path("record");
        let _ = std::fs::remove_file(&record);
        let mut command = wine.command("windows-probe.exe");
        command.args([request, &windows_path(&record), &windows_path(&wine.path("order"))]);
        command.args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let session = Session::start(command, (24, 80));
        // What it shows has to be taken, or it waits.
        let mut terminal = session.master.try_clone().unwrap();
        let mut shown = File::create(wine.path("out/terminal")).unwrap();
        std::thread::spawn(move || std::io::copy(&mut terminal, &mut shown));
        Self { wine, session, record }
    }

    /// What was recorded under this word so far.
    fn recorded(&self, word: &str) -> Vec<Settings> {
        let text = std::fs::read_to_string(&self.record).unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let of_word = lines.filter_map(|line| line.strip_prefix(word));
        of_word
            .map(|line| {
                let numbers: Vec<u32> =
                    line.split_whitespace().map(|number| number.parse().unwrap()).collect();
                let [input, output, read, shown] = numbers[..] else { panic!("{line}") };
                Settings { input, output, code_pages: [read, shown] }
            })
            .collect()
    }

    /// Waits until the console is raw.
    fn wait_raw(&self) {
        let raw = || self.recorded("during").last().is_some_and(|now| now.is_raw());
        eventually(raw, || format!("{:?}", std::fs::read_to_string(&self.record)));
    }

    /// Has something done at the console.
    fn order(&self, order: &str) {
        let new = self.wine.path("order.new");
        std::fs::write(&new, order).unwrap();
        std::fs::rename(new, self.wine.path("order")).unwrap();
    }

    /// How many others than the probe have the console at this moment.
    pub fn others(&self) -> u32 {
        self.order("count");
        let mut found = None;
        let counted = || {
            let text = std::fs::read_to_string(&self.record).unwrap();
            found = others(&text);
            found.is_some()
        };
        eventually(counted, || "the probe doesn't count".to_owned());
        found.unwrap()
    }

    /// Waits for the end, and proves that the console is then as it was before.
    pub fn end(mut self) -> Ended {
        let watcher = self.session.wait();
        let text = std::fs::read_to_string(&self.record).unwrap();
        assert_eq!(watcher, 0, "{text}");
        let before = self.recorded("before");
        // It can be told from a raw one.
        assert_eq!(before[0].input & (COOKED | VT_INPUT), COOKED, "{text}");
        assert_ne!(before[0].output & VT_OUTPUT, VT_OUTPUT, "{text}");
        assert_ne!(before[0].code_pages, [UTF8; 2], "{text}");
        assert_eq!(self.recorded("after"), before, "{text}");
        let code = text.lines().find_map(|line| line.strip_prefix("code ")).unwrap();
        Ended {
            code: code.to_owned(),
            was_changed: !self.recorded("during").is_empty(),
            others: others(&text).unwrap(),
        }
    }
}

/// What is known once a command has ended.
pub struct Ended {
    /// Its exit code.
    pub code: String,
    /// Whether the console was different meanwhile.
    pub was_changed: bool,
    /// How many others have the console still.
    pub others: u32,
}

/// How many others had the console last.
fn others(record: &str) -> Option<u32> {
    let mut lines = record.split_inclusive('\n').filter(|line| line.ends_with('\n')).rev();
    lines.find_map(|line| line.strip_prefix("others ")).map(|number| number.trim().parse().unwrap())
}

/// The sizes that a process's console was given since the last time.
fn sizes(wine: &Wine) -> Vec<Value> {
    let calls = wine.calls().into_iter().filter(|call| call.function == "HcsModifyProcess");
    let requests =
        calls.filter_map(|call| serde_json::from_str(call.about.split_once(' ')?.1).ok());
    requests
        .filter(|request: &Value| request["Operation"] == "ConsoleSize")
        .map(|request| request["ConsoleSize"].clone())
        .collect()
}

/// Waits until a process's console is given a size.
#[track_caller]
fn wait_size(wine: &Wine, columns: u16, rows: u16) {
    let mut seen = Vec::new();
    let size = json!({"Height": rows, "Width": columns});
    let given = || {
        seen.extend(sizes(wine));
        seen.last() == Some(&size)
    };
    eventually(given, || format!("the console is not given the size {size}"));
}

in_all!(a_container_has_the_callers_console, |wine: &Wine, kind: Kind| {
    let bundle = kind.lasting_with(wine, "one", |spec| spec["process"]["terminal"] = true.into());
    let path = windows_path(bundle.path());
    let console = Watched::start(wine, &["run", "--bundle", &path, "one"]);
    console.wait_raw();
    wait_size(wine, 80, 24);
    console.order("size 100 30");
    wait_size(wine, 100, 30);
    wine.runhcs(&["kill", "one", "KILL"]).ok();
    assert_ne!(console.end().code, "0");
    wine.runhcs(&["state", "one"]).refused("one");
});

in_all!(a_further_process_has_the_callers_console, |wine: &Wine, kind: Kind| {
    wine.new_container(&["run", "--detach"], &kind.lasting(wine, "one"), "one").ok();
    let mut line = vec!["exec", "--tty", "one"];
    line.extend(match kind {
        Kind::Lcow => vec!["sleep", "1000"],
        _ => vec!["ping", "-n", "1000", "127.0.0.1"],
    });
    let console = Watched::start(wine, &line);
    console.wait_raw();
    wait_size(wine, 80, 24);
    console.order("size 70 20");
    wait_size(wine, 70, 20);
    wine.runhcs(&["delete", "--force", "one"]).ok();
    console.end();
});

in_all!(a_console_is_given_back_when_nothing_starts, |wine: &Wine, kind: Kind| {
    let bundle = kind.lasting_with(wine, "one", |spec| spec["process"]["terminal"] = true.into());
    let path = windows_path(bundle.path());
    wine.sim.faults(&["HcsCreateProcess#1:hang"]).unwrap();
    let mut command = wine.runhcs_command(&["run", "--bundle", &path, "one"]);
    command.env("RUNHCS_DEADLINE", "3000");
    let console = Watched::start_command(wine, "console", command);
    // It is got ready before, so that all that the process writes is shown right.
    console.wait_raw();
    assert_eq!(console.end().code, "1");
});

in_all!(a_process_without_a_console_leaves_the_callers, |wine: &Wine, kind: Kind| {
    let path = windows_path(kind.bundle(wine, "one").path());
    let console = Watched::start(wine, &["run", "--bundle", &path, "one"]);
    let ended = console.end();
    assert_eq!((ended.code.as_str(), ended.was_changed), ("7", false));
});

// Wine has no Ctrl-Break.
in_all!(ctrl_c_is_passed_on, |wine: &Wine, kind: Kind| {
    let path = windows_path(kind.lasting(wine, "one").path());
    let console = Watched::start(wine, &["run", "--bundle", &path, "one"]);
    let state = || wine.runhcs(&["state", "one"]).stdout;
    eventually(|| state().contains("\"running\""), state);
    wine.calls();
    console.order("Ctrl-C");
    let (code, signal) = match kind {
        Kind::Lcow => ("130".to_owned(), "2"),
        // `STATUS_CONTROL_C_EXIT`
        _ => (0xC000_013A_u32.cast_signed().to_string(), "\"CtrlC\""),
    };
    // The command and the shim, which have the same console, live to tell how the process ended.
    let ended = console.end();
    assert_eq!((ended.code, ended.was_changed), (code, false));
    let calls = wine.calls().into_iter();
    let told: Vec<_> = calls.filter(|call| call.function == "HcsSignalProcess").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].about.contains(signal), "{told:?}");
});
