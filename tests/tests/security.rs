//! Known attacks on container runtimes, each tried from within a container.

use std::process::Stdio;

use runhcs_tests::{Bundle, Harness, Isolation, eventually};

/// CVE-2019-5736: a container has the runtime executed in it, keeps its file open, and overwrites
/// the host's runtime once nobody executes it any more.
#[test]
fn the_runtimes_own_program_is_out_of_reach() {
    Harness::run(Isolation::Process, "own program", |h| {
        // If the attack succeeds, this is what it hits.
        let copy = h.path("runhcs-copy");
        let copied = std::process::Command::new("cp").arg(h.program()).arg(&copy).status();
        assert!(copied.unwrap().success());
        let before = std::fs::read(&copy).unwrap();
        let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
        // The development profile's program is dynamic: it brings its libraries along.
        let libraries = std::process::Command::new("ldd").arg(&copy).output().unwrap().stdout;
        let libraries = String::from_utf8(libraries).unwrap();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let to = bundle.path().join("rootfs").join(&library[1..]);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(library, to).unwrap();
        }
        h.new_container(&["run", "--detach"], &bundle, "box").ok();
        // Waits for its standard input, for as long as it is needed.
        let line = ["exec", "box", "/proc/self/exe", "update", "--resources", "-", "box"];
        let mut victim = std::process::Command::new(&copy);
        victim.args(h.command(&line).get_args()).env("RUNHCS_E2E", &h.token);
        let mut victim = victim.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        // Not to be found in this script's own command line.
        let find = "w=resources; for p in /proc/[0-9]*; do
                case \"$(tr '\\0' ' ' < $p/cmdline)\" in
                    *\" --$w - box \"*) echo $p;;
                esac
            done";
        let mut process = String::new();
        eventually(
            || {
                process = h.runhcs(&["exec", "box", "sh", "-c", find]).stdout.trim().to_owned();
                !process.is_empty()
            },
            || format!("it was not executed: {:?}", victim.try_wait()),
        );
        // Opened while it runs, written when it has ended.
        let attack = format!(
            "exec 3< {process}/exe || exit 7
            kill -9 {pid}; while test -e {process}/exe; do sleep 0.1; done
            echo overwritten > /proc/self/fd/3",
            pid = process.trim_start_matches("/proc/")
        );
        let outcome = h.runhcs(&["exec", "box", "sh", "-c", &attack]);
        victim.wait().unwrap();
        assert_ne!(outcome.code, 7, "{outcome:?}");
        assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
        assert!(std::fs::read(&copy).unwrap() == before, "the runtime was overwritten");
        h.runhcs(&["delete", "--force", "box"]).ok();
    });
}
