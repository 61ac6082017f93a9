//! Running programs and measuring what they take.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

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
    let child = start(command)?;
    let peak_kib = finish(child, command)?;
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

/// Runs programs, as many as `at_once` at the same time.
pub fn run_parallel(commands: Vec<Command>, at_once: usize) -> Result<Sample> {
    let begin = Instant::now();
    let mut running: Vec<(Child, Command)> = Vec::new();
    let mut peak_kib = 0;
    for mut command in commands {
        if running.len() == at_once {
            // They take equally long, so the oldest is about to end.
            let (child, command) = running.remove(0);
            peak_kib = peak_kib.max(finish(child, &command)?);
        }
        running.push((start(&mut command)?, command));
    }
    for (child, command) in running {
        peak_kib = peak_kib.max(finish(child, &command)?);
    }
    Ok(Sample { time: begin.elapsed(), peak_kib })
}

fn start(command: &mut Command) -> Result<Child> {
    // A pidfd is not needed, and without a hook std uses vfork(2), which is what is cheapest.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().with_context(|| format!("start {command:?}"))
}

fn finish(child: Child, command: &Command) -> Result<i64> {
    let mut status = 0;
    // SAFETY: a structure of integers, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for writing, and the child was not waited for.
    let ended = unsafe { libc::wait4(child.id() as i32, &mut status, 0, &mut usage) };
    if ended < 0 {
        bail!("wait for {command:?}: {}", std::io::Error::last_os_error());
    }
    if status != 0 {
        bail!("{command:?} failed (wait status {status:#x})");
    }
    Ok(usage.ru_maxrss)
}
