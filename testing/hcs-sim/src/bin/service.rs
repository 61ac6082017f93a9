//! The stand-in's service. It says its address in the first line of its output and ends when its
//! standard input does, with all that it runs: so it never outlives the test that started it.

use std::io::{self, Read, Write};

fn main() -> anyhow::Result<()> {
    let (listener, address) = hcs_sim::service::listen()?;
    let mut output = io::stdout();
    writeln!(output, "{address}")?;
    output.flush()?;
    std::thread::spawn(move || {
        if let Err(error) = hcs_sim::service::serve(&listener) {
            eprintln!("hcs-sim: {error}");
        }
    });
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
