//! What `/proc/<pid>/stat` says about a process (proc(5)).

use std::io;
use std::path::PathBuf;

use crate::sys::ProcessTimes;
use crate::{Error, Result};

/// When the process started, in clock ticks since boot, and whether it is a zombie. `None` if
/// there is no such process.
pub(crate) fn process_times(pid: u32) -> Result<Option<ProcessTimes>> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    match std::fs::read(&path) {
        Ok(stat) => match parse(&stat) {
            Some(times) => Ok(Some(times)),
            None => {
                let source = io::Error::new(io::ErrorKind::InvalidData, "unexpected format");
                Err(Error::io("understand", &path, source))
            }
        },
        // ESRCH: it was reaped between open and read.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::io("read", &path, error)),
    }
}

/// The second field is the command's name in parentheses, and may itself hold blanks and
/// parentheses; after it come the state (field 3) and, 19 fields on, the start time (field 22).
fn parse(stat: &[u8]) -> Option<ProcessTimes> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(ProcessTimes { start_time, ended: matches!(state, "Z" | "X" | "x") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_may_hold_anything() {
        let rest = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["sh", "a) R (b", ") Z 1", "ä\n"] {
            let times = parse(format!("12 ({name}) S {rest}\n").as_bytes()).unwrap();
            assert_eq!((times.start_time, times.ended), (4711, false), "{name:?}");
        }
        assert!(parse(format!("12 (sh) Z {rest}").as_bytes()).unwrap().ended);
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        for text in ["", "12", "12 (sh", "12 (sh)", "12 (sh) S 1 2 3"] {
            assert!(parse(text.as_bytes()).is_none(), "{text:?}");
        }
    }
}
