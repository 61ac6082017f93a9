//! Uses the stand-in as a program of Windows would, through the C interface, and says what it got:
//! one line a step, `name: result`. The test that runs it under Wine compares.

#[cfg(windows)]
mod calls;
#[cfg(windows)]
mod pipe;
#[cfg(windows)]
mod steps;

#[cfg(windows)]
fn main() {
    steps::run();
}

#[cfg(not(windows))]
fn main() {
    eprintln!("hcs-sim-check: this program is for Windows");
    std::process::exit(1);
}
