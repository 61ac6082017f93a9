//! What tests do with files inside of containers and a shell can't: locks, sockets, shared memory,
//! notifications, and a long random exercise whose outcome is known.

mod between;
mod exercise;
mod handles;
mod map;

use std::path::Path;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["lock", path] => between::hold_lock(Path::new(path)),
        ["try-lock", path] => between::try_lock(Path::new(path)),
        ["listen", path] => between::listen(Path::new(path)),
        ["connect", path] => between::connect(Path::new(path)),
        ["watch", path] => between::watch(Path::new(path)),
        ["count", path] => between::count_in_shared_memory(Path::new(path)),
        ["exercise", path, seed, steps] => {
            let (seed, steps) = (seed.parse().context("the seed")?, steps.parse()?);
            exercise::run(Path::new(path), seed, steps)
        }
        ["refusals", path] => between::print_refusals(Path::new(path)),
        other => bail!("unknown: {other:?}"),
    }
}
