//! The commands that the stand-in's Linux guest has. They are enough for tests of streams, exit
//! codes and signals; a real guest has a real shell.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::Duration;

use crate::model::{GuestDisk, is_physical};
use crate::sys;

/// The commands, without their directory.
const COMMANDS: [&str; 13] = [
    "cat",
    "echo",
    "env",
    "err",
    "exit",
    "false",
    "ls",
    "mkfs.ext4",
    "sh",
    "sleep",
    "test",
    "trap",
    "true",
];
/// The environment variable with the machine's disks, for its own processes.
pub const DISKS: &str = "HCS_SIM_DISKS";
/// Where ext4 has its magic number, and what that is (ext4's documentation of the super block).
pub const EXT4: (u64, [u8; 2]) = (1024 + 0x38, [0x53, 0xEF]);

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
        // Of the file systems of a guest there is only what says where disks are.
        "test" => match rest {
            [flag, path] if flag == "-d" => return u32::from(disk_of_directory(path).is_none()),
            _ => return 2,
        },
        "ls" => match rest {
            [path] => match disk_of_directory(path) {
                Some(disk) => writeln!(io::stdout(), "{}", disk.name),
                None => return 2,
            },
            _ => return 2,
        },
        "mkfs.ext4" => rest.last().map_or_else(|| Err(missing()), |device| make_ext4(device)),
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
    match done {
        Ok(()) => 0,
        Err(error) => {
            // Where nobody reads, nothing more can be said.
            let _ = writeln!(io::stderr(), "{}: {error}", name(command));
            1
        }
    }
}

fn disks() -> Vec<GuestDisk> {
    let text = std::env::var(DISKS).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// The disk whose device's name a directory of Linux holds.
fn disk_of_directory(path: &str) -> Option<GuestDisk> {
    let place = path.strip_prefix("/sys/bus/scsi/devices/")?.strip_suffix("/block")?;
    let at = |disk: &GuestDisk| format!("{}:0:0:{}", disk.controller, disk.unit);
    disks().into_iter().find(|disk| at(disk) == place)
}

fn missing() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such device")
}

/// Makes as much of a file system as a test can see: its magic number. A disk of the host isn't
/// touched.
fn make_ext4(device: &str) -> io::Result<()> {
    let named = |disk: &GuestDisk| device.strip_prefix("/dev/") == Some(&disk.name);
    let disk = disks().into_iter().find(named).ok_or_else(missing)?;
    if disk.read_only {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the device is read-only"));
    }
    if is_physical(&disk.path) {
        return Ok(());
    }
    let mut file = OpenOptions::new().write(true).open(&disk.path)?;
    file.seek(SeekFrom::Start(EXT4.0))?;
    file.write_all(&EXT4.1)
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
