//! What a process says and hears.

use std::fs::File;
use std::io::{self, Read, Write};

use anyhow::{Context, Result};

/// The longest answer that is listened to, in bytes.
const LONGEST: usize = 64 << 10;

/// Sends a message to a named pipe, unless it is empty, and says the answer.
pub fn ask(pipe: &str, message: &str) -> Result<()> {
    let opened = File::options().read(true).write(true).open(pipe);
    let mut pipe = opened.with_context(|| format!("open the pipe {pipe}"))?;
    if message.is_empty() {
        return Ok(());
    }
    pipe.write_all(message.as_bytes()).context("ask")?;
    let mut answer = vec![0; LONGEST];
    // An end of the pipe is an empty answer.
    let length = pipe.read(&mut answer).unwrap_or(0);
    io::stdout().write_all(&answer[..length]).context("say the answer")
}

/// Says one argument a line.
pub fn arguments(arguments: &[&str]) -> Result<()> {
    for argument in arguments {
        println!("{argument}");
    }
    Ok(())
}

/// Says what it hears, until that ends; and that it has ended, as an error.
pub fn copy() -> Result<()> {
    io::copy(&mut io::stdin(), &mut io::stdout()).context("copy")?;
    eprintln!("the input has ended");
    Ok(())
}
