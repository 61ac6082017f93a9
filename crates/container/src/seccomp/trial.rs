//! A trial of the rules that libseccomp may never be done with.
//!
//! Version 2.5.4 of the library can go in circles for ever when it merges rules of several
//! conditions into those that a call has already. Profiles in use have such rules and are merged
//! well, so they can't be refused by their shape: they are first merged in a child whose processor
//! time is limited, and the caller's own attempt is then known to end.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};

use oci_spec::runtime::{LinuxSeccomp, LinuxSyscall};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::child::Child;
use crate::init;

/// The processor time for a trial, in seconds. The largest profiles in use take milliseconds.
const LIMIT: Option<u64> = Some(2);

/// The first rule, by its index in `linux.seccomp.syscalls`, that has to be merged with another
/// one of the same call while one of them has several conditions. Rules of one condition each were
/// never seen to hang.
pub(super) fn needed(seccomp: &LinuxSeccomp) -> Option<usize> {
    let mut calls: HashMap<&str, (usize, bool)> = HashMap::new();
    for (index, rule) in seccomp.syscalls().iter().flatten().enumerate() {
        let conditions = conditions(rule);
        if conditions == 0 {
            continue;
        }
        for name in rule.names() {
            let (rules, several) = calls.entry(name).or_default();
            *rules += 1;
            *several |= conditions > 1;
            if *rules > 1 && *several {
                return Some(index);
            }
        }
    }
    None
}

fn conditions(rule: &LinuxSyscall) -> usize {
    rule.args().as_ref().map_or(0, Vec::len)
}

/// Runs `attempt` in a child; whether it came to an end.
///
/// # Errors
/// There is no child to be had.
pub(super) fn ends(attempt: impl FnOnce()) -> io::Result<bool> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (mut reader, mut writer) = (File::from(reader), File::from(writer));
    // SAFETY: the C library makes its allocator usable in the child even if other threads held its
    // locks; the child uses nothing else that has locks, and never returns from here.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // The kernel kills what goes on for longer (getrlimit(2), `RLIMIT_CPU`).
            let limit = Rlimit { current: LIMIT, maximum: LIMIT };
            if setrlimit(Resource::Cpu, limit).is_ok() {
                attempt();
                let _ = writer.write_all(&[1]);
            }
            init::exit();
        }
        pid => {
            let _child = Child::new(pid as u32);
            drop(writer);
            // The byte rather than the status tells: the status is lost if SIGCHLD is ignored.
            let mut said = Vec::new();
            reader.read_to_end(&mut said)?;
            Ok(!said.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rules: &str) -> Option<usize> {
        let json = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rules}]}}"#);
        needed(&serde_json::from_str(&json).unwrap())
    }

    #[test]
    fn only_rules_of_several_conditions_for_one_call_are_tried() {
        let plain = r#"{"names":["mkdir"],"action":"SCMP_ACT_TRAP"}"#;
        let one = r#"{"names":["mkdir"],"action":"SCMP_ACT_TRAP","args":[
            {"index":0,"value":0,"op":"SCMP_CMP_NE"}]}"#;
        let two = r#"{"names":["rmdir","mkdir"],"action":"SCMP_ACT_TRAP","args":[
            {"index":0,"value":0,"op":"SCMP_CMP_NE"},{"index":1,"value":0,"op":"SCMP_CMP_NE"}]}"#;
        let other = two.replace("mkdir", "open").replace("rmdir", "chdir");
        assert_eq!(of(&format!("{plain},{one},{one}")), None);
        assert_eq!(of(&format!("{plain},{two},{other}")), None);
        assert_eq!(of(&format!("{plain},{one},{two}")), Some(2));
        assert_eq!(of(&format!("{two},{one}")), Some(1));
    }

    #[test]
    fn an_attempt_ends_or_is_ended() {
        assert!(ends(|| ()).unwrap());
        let circle = || {
            loop {
                std::hint::spin_loop();
            }
        };
        assert!(!ends(circle).unwrap());
    }
}
