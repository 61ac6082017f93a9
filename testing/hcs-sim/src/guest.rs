//! The commands that the stand-in's Linux guest has. They are enough for tests of streams, exit
//! codes and signals; a real guest has a real shell.

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::sys;

/// The commands, without their directory.
const COMMANDS: [&str; 10] =
    ["cat", "echo", "env", "err", "exit", "false", "sh", "sleep", "trap", "true"];

/// Whether the guest has this command.
pub fn knows(command: &str) -> bool {
    COMMANDS.contains(&name(command))
}

fn name(command: &str) -> &str {
    command.rsplit_once('/').map_or(command, |(_, name)| name)
}

/// Runs a command and returns its exit code.
pub fn run(arguments: &[String]) -> u32 {
    let Some((command, rest)) = arguments.split_first() else { return 127 };
    let words = || rest.join(" ");
    let done = match name(command) {
        "true" => return 0,
        "false" => return 1,
        "exit" => std::process::exit(rest.first().and_then(|code| code.parse().ok()).unwrap_or(0)),
        // `sh -c 'one; two'`: the commands in turn, until one ends the process.
        "sh" => {
            let script = rest.get(1).cloned().unwrap_or_default();
            let mut code = 0;
            for line in script.split(';') {
                let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
                code = run(&words);
            }
            return code;
        }
        "echo" => writeln!(io::stdout(), "{}", words()),
        "err" => writeln!(io::stderr(), "{}", words()),
        "env" => {
            std::env::vars().try_for_each(|(name, value)| writeln!(io::stdout(), "{name}={value}"))
        }
        "cat" => copy(),
        "sleep" => {
            let seconds = rest.first().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0);
            std::thread::sleep(Duration::from_secs_f64(seconds));
            Ok(())
        }
        // `trap SIGNAL CODE`: from now on, this signal ends the process with this code.
        "trap" => match rest {
            [signal, code] => match (signal.parse(), code.parse()) {
                (Ok(signal), Ok(code)) => sys::on_signal(signal, code),
                _ => return 2,
            },
            _ => return 2,
        },
        _ => return 127,
    };
    u32::from(done.is_err())
}

/// Copies standard input to standard output piece by piece, so that nothing waits for the end.
fn copy() -> io::Result<()> {
    let mut buffer = [0; 4096];
    let (mut input, mut output) = (io::stdin(), io::stdout());
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(()),
            count => output.write_all(&buffer[..count])?,
        }
        output.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_without_their_directory() {
        assert!(knows("/bin/sh") && knows("echo"));
        assert!(!knows("/bin/nothing"));
        assert_eq!(run(&["/bin/true".to_owned()]), 0);
        assert_eq!(run(&["sh".to_owned(), "-c".to_owned(), "true; false".to_owned()]), 1);
    }
}
