//! A trial of the rules that libseccomp may never be done with.
//!
//! Version 2.5.4 of the library (and others, as far as is known) can go in circles for ever when it
//! merges rules of several conditions into those that a call has already. No shape of the rules
//! tells whether it will, only which rules are safe, so the others are first merged in a child
//! whose processor time is limited: the caller's own attempt is then known to end.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};

use oci_spec::runtime::{LinuxSeccomp, LinuxSyscall};
use rustix::process::{Pid, WaitOptions, waitpid};

/// The processor time for a trial, in seconds. The largest profiles in use take milliseconds.
const LIMIT: libc::rlim_t = 2;

/// The first rule, by its index in `linux.seccomp.syscalls`, that has to be merged with another
/// one of the same call while one of them has several conditions. Calls with one rule, and with
/// rules of one condition each, are merged in bounded time.
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
            let done = limit_processor_time().is_ok_and(|()| {
                attempt();
                writer.write_all(&[1]).is_ok()
            });
            // SAFETY: ends the child without running what the parent had registered for its end.
            unsafe { libc::_exit(if done { 0 } else { 1 }) }
        }
        child => {
            drop(writer);
            // The byte rather than the status tells: the status is lost if SIGCHLD is ignored.
            let mut said = Vec::new();
            let read = reader.read_to_end(&mut said);
            let _ = Pid::from_raw(child).map(|pid| waitpid(Some(pid), WaitOptions::empty()));
            read.map(|_| !said.is_empty())
        }
    }
}

/// Has the kernel kill the calling process after [`LIMIT`] (getrlimit(2), `RLIMIT_CPU`).
fn limit_processor_time() -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
    // SAFETY: the limit outlives the call, which only reads it.
    match unsafe { libc::setrlimit(libc::RLIMIT_CPU, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
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
