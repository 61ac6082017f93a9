//! What a process leaves running in the background keeps its output.

use std::io::Read;
use std::process::Stdio;

use runhcs_tests::{Bundle, Harness, in_both};

in_both!(output_of_the_background_goes_on, |h: &Harness| {
    let bundle = Bundle::new(h, "box", &["sleep", "1000"]);
    h.new_container(&["run", "--detach"], &bundle, "box").ok();
    let script = "(while ! test -e /go; do sleep 0.1; done; echo later) 2>/dev/null &
        echo now; echo error >&2; exit 7";
    let mut command = h.command(&["exec", "box", "sh", "-c", script]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut exec = command.spawn().unwrap();
    let (mut stdout, mut stderr) = (exec.stdout.take().unwrap(), exec.stderr.take().unwrap());
    // What stands for the process ends with it, and so does the error output, which nobody has.
    assert_eq!(exec.wait().unwrap().code(), Some(7));
    let mut text = String::new();
    stderr.read_to_string(&mut text).unwrap();
    assert_eq!(text, "error\n");
    let mut now = [0; 4];
    stdout.read_exact(&mut now).unwrap();
    assert_eq!(&now, b"now\n");
    std::fs::write(bundle.path().join("rootfs/go"), "").unwrap();
    // To its end, which is that of the process in the background.
    let mut later = String::new();
    stdout.read_to_string(&mut later).unwrap();
    assert_eq!(later, "later\n");

    // To a file too; and with the container everything of it ends.
    h.runhcs(&["exec", "box", "sh", "-c", "sleep 1000 & echo started"]).ok();
    h.runhcs(&["delete", "--force", "box"]).ok();
});
