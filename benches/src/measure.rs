//! Running programs and measuring what they take.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::MemfdFlags;

/// How much of what a program says is shown when it fails, in bytes.
const MAX_SAID: u64 = 16 << 10;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// From before the start until after the end.
    pub time: Duration,
    /// The most memory that the program, or a child that it waited for, had resident; in KiB.
    pub peak_kib: i64,
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Result<Sample> {
    let begin = Instant::now();
    let peak_kib = Running::start(command)?.finish()?;
    Ok(Sample { time: begin.elapsed(), peak_kib })
}

/// Runs programs one after another, as one.
pub fn run_all(commands: &mut [Command]) -> Result<Sample> {
    let begin = Instant::now();
    let mut peak_kib = 0;
    for command in commands {
        peak_kib = peak_kib.max(run(command)?.peak_kib);
    }
    Ok(Sample { time: begin.elapsed(), peak_kib })
}

/// Runs programs, as many as `at_once` at the same time. When one fails no more are started, and
/// those that run are waited for.
pub fn run_parallel(commands: &mut [Command], at_once: usize) -> Result<Sample> {
    let begin = Instant::now();
    let mut running: VecDeque<Running<'_>> = VecDeque::new();
    let mut peak_kib = Ok(0);
    for command in commands {
        if running.len() == at_once
            && let Some(oldest) = running.pop_front()
        {
            // They take equally long, so the oldest is about to end.
            peak_kib = higher(peak_kib, oldest.finish());
        }
        if peak_kib.is_err() {
            break;
        }
        match Running::start(command) {
            Ok(started) => running.push_back(started),
            Err(error) => peak_kib = Err(error),
        }
    }
    for oldest in running {
        peak_kib = higher(peak_kib, oldest.finish());
    }
    Ok(Sample { peak_kib: peak_kib?, time: begin.elapsed() })
}

/// The higher of two peaks, or the first failure.
fn higher(one: Result<i64>, other: Result<i64>) -> Result<i64> {
    Ok(one?.max(other?))
}

/// A program that was started.
struct Running<'a> {
    command: &'a Command,
    child: Child,
    /// Its standard error.
    said: File,
}

impl<'a> Running<'a> {
    fn start(command: &'a mut Command) -> Result<Self> {
        // A file, as whatever it leaves may keep it open.
        let said =
            rustix::fs::memfd_create("stderr", MemfdFlags::CLOEXEC).context("make a file")?;
        let said = File::from(said);
        // A pidfd is not needed, and without a hook std uses vfork(2), which is what is cheapest.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(said.try_clone().context("copy a descriptor")?);
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        // Nor is its descriptor.
        command.stderr(Stdio::null());
        Ok(Self { command, child, said })
    }

    /// Waits for its end; returns the most memory that it had, in KiB.
    fn finish(mut self) -> Result<i64> {
        let mut status = 0;
        // SAFETY: a structure of integers, for which zeros are valid.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are valid for writing, and the child was not waited for.
        let ended = unsafe { libc::wait4(self.child.id() as i32, &mut status, 0, &mut usage) };
        if ended < 0 {
            bail!("wait for {:?}: {}", self.command, std::io::Error::last_os_error());
        }
        if status == 0 {
            return Ok(usage.ru_maxrss);
        }
        let mut said = Vec::new();
        self.said.rewind()?;
        self.said.take(MAX_SAID).read_to_end(&mut said)?;
        let said = String::from_utf8_lossy(&said);
        let said = if said.trim().is_empty() { "it said nothing" } else { said.trim() };
        let status = ExitStatus::from_raw(status);
        Err(anyhow!("{said}").context(format!("{:?} failed ({status})", self.command)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_tells_what_the_program_said() {
        let error = run(&mut shell("echo one >&2; echo two >&2; exit 3")).unwrap_err();
        assert!(error.to_string().ends_with("failed (exit status: 3)"), "{error}");
        assert_eq!(error.root_cause().to_string(), "one\ntwo");
        let error = run(&mut shell("kill -9 $$")).unwrap_err();
        assert!(error.to_string().contains("signal: 9"), "{error}");
        assert_eq!(error.root_cause().to_string(), "it said nothing");
    }

    #[test]
    fn a_failure_among_many_waits_for_those_that_run_and_starts_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let go_on = file("go-on").display().to_string();
        let mut commands = [
            shell("echo why >&2; exit 1"),
            shell(&format!("until test -e {go_on}; do sleep 0.01; done; echo > {go_on}.seen")),
            shell(&format!("echo > {go_on}")),
            shell(&format!("echo > {go_on}.late")),
        ];
        let error = run_parallel(&mut commands, 3).unwrap_err();
        assert_eq!(error.root_cause().to_string(), "why");
        assert!(file("go-on.seen").exists() && !file("go-on.late").exists());
    }
}
