//! What is logged, and what is shown to who waits.

use runhcs_tests::{Bundle, Harness, Isolation};
use serde_json::Value;

fn lines(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text.lines().map(parse).collect()
}

#[test]
fn one_container_can_be_followed_through_every_log() {
    Harness::run(Isolation::Vm, "logs", |h| {
        let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
        let path = bundle.path().to_str().unwrap();
        let (log, vm_log, shim_log) = (h.path("box.log"), h.path("box-vm.log"), h.path("shim.log"));
        let (log, vm_log, shim_log) =
            (log.to_str().unwrap(), vm_log.to_str().unwrap(), shim_log.to_str().unwrap());
        let common = ["--debug", "--log-format", "json", "--log", log];
        let create = ["create", "--isolation", "vm", "--vm-log", vm_log, "--shim-log", shim_log];
        // The later of two --log options counts.
        h.runhcs(&[&common[..], &create, &["--bundle", path, "box"]].concat()).ok();
        h.runhcs(&[&common[..], &["start", "box"]].concat()).ok();
        h.runhcs(&[&common[..], &["delete", "--force", "box"]].concat()).ok();

        let command = std::fs::read_to_string(log).unwrap();
        let steps: Vec<Value> =
            lines(&command).into_iter().filter(|line| line["step"].is_string()).collect();
        let names: Vec<&str> = steps.iter().filter_map(|line| line["step"].as_str()).collect();
        let all = ["load", "place", "claim", "vm-options", "vm", "guest-spec", "container", "shim"];
        for name in all.iter().chain(&["main"]) {
            assert!(names.contains(name), "{name} is missing in {names:?}");
        }
        for line in &steps {
            assert!(line["took"].is_string() && line["container"] == "box", "{line}");
        }
        let container = steps.iter().find(|line| line["step"] == "container").unwrap();
        assert_eq!(container["vm"], "box@vm", "{container}");

        let shim = lines(&std::fs::read_to_string(shim_log).unwrap());
        assert!(!shim.is_empty());
        for line in &shim {
            assert_eq!((&line["container"], &line["vm"]), (&"box".into(), &"box@vm".into()));
        }

        let vm = lines(&std::fs::read_to_string(vm_log).unwrap());
        for line in &vm {
            assert_eq!(line["vm"], "box@vm", "{line}");
        }
        let guest: Vec<&Value> = vm.iter().filter(|line| line["target"] == "guest").collect();
        for what in ["create container", "start container"] {
            let said = |line: &&&Value| {
                line["container"] == "box" && line["message"].as_str().unwrap().starts_with(what)
            };
            let line = guest.iter().find(said).unwrap_or_else(|| panic!("{what}: {guest:?}"));
            assert!(line["message"].as_str().unwrap().contains("elapsed="), "{line}");
        }
    });
}

#[test]
fn a_terminal_shows_that_the_vm_is_starting() {
    Harness::run(Isolation::Vm, "progress", |h| {
        let bundle = Bundle::new(h, "box", &["echo", "done"]);
        let run = h.new_container(&["run"], &bundle, "box").ok();
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("done\n", ""));

        let command = h.command(&["run", "--isolation", "vm", "--bundle"]);
        let mut words = vec![command.get_program().to_str().unwrap().to_owned()];
        words.extend(command.get_args().map(|word| word.to_str().unwrap().to_owned()));
        words.extend([bundle.path().to_str().unwrap().to_owned(), "box".to_owned()]);
        // script(1) runs it on a terminal of its own and copies what that shows.
        let mut terminal = std::process::Command::new("script");
        terminal.args(["-q", "-e", "-c", &words.join(" "), "/dev/null"]);
        terminal.env("TERM", "xterm").env("RUNHCS_E2E", &h.token).env("TMPDIR", h.path("tmp"));
        terminal.stdin(std::process::Stdio::null());
        let shown = h.finish(terminal).ok().stdout;
        assert!(shown.contains("starting the virtual machine"), "{shown:?}");
        assert!(shown.contains("done"), "{shown:?}");
    });
}
